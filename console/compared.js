// Rows of a file beside what two models made of them, drawn as far as they are on the screen. All of it is text.
export default {
  template: `
    <q-table class="rows compared" flat virtual-scroll hide-pagination wrap-cells row-key="line" :rows="rows" :columns="columns"
      :aria-label="label" :pagination="{ rowsPerPage: 0 }" :rows-per-page-options="[0]" :virtual-scroll-item-size="120">
      <template v-slot:body="line">
        <q-tr :props="line" :class="{ differs: line.row.differs }">
          <q-td key="line" :props="line"><span class="narrow-only muted">Line </span>{{ line.row.line }}</q-td>
          <q-td key="prompt" :props="line">{{ line.row.prompt }}</q-td>
          <q-td key="expected" :props="line"><span class="narrow-only muted">File: </span>{{ line.row.expected }}</q-td>
          <q-td v-for="side in ['left', 'right']" :key="side" :props="line">
            <span class="narrow-only muted">{{ names[side] }}: </span>
            <div v-if="line.row.marks[side] !== null" class="small" :class="line.row.marks[side] ? 'good' : 'bad'">
              {{ line.row.marks[side] ? "✓ right" : "✗ not the file's" }}</div>{{ line.row[side] }}
          </q-td>
        </q-tr>
      </template>
    </q-table>`,
  props: { names: Object, label: String },
  data: () => ({ rows: [] }),
  computed: {
    columns() {
      const titles = { line: "Line", prompt: "Asked", expected: "File", ...this.names };
      return Object.entries(titles).map(([name, label]) => ({ name, label, field: name, align: "left" }));
    },
  },
  mounted() {
    const region = this.$el.querySelector(".q-table__middle");
    for (const [name, value] of Object.entries({ tabindex: "0", role: "region", "aria-label": this.label }))
      region?.setAttribute(name, value);
  },
  methods: {
    show(rows) {
      this.rows = rows;
    },
  },
};
