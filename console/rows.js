// Quasar's table, which draws only what is on the screen, with rows that come one page at a time and change one by one.
export default {
  template: `
    <q-table class="rows" flat virtual-scroll hide-pagination row-key="id" :rows="rows" :columns="columns" :aria-label="label"
      :pagination="{ rowsPerPage: 0 }" :rows-per-page-options="[0]" :virtual-scroll-item-size="45" @virtual-scroll="scrolled">
      <template v-slot:body-cell="cell">
        <q-td :props="cell">
          <a v-if="cell.col.kind === 'link'" :href="cell.row.href" class="row-link">{{ cell.value }}</a>
          <span v-else-if="cell.col.kind === 'state'" class="state" :class="cell.row.state_class">{{ cell.value }}</span>
          <span v-else-if="cell.col.kind === 'progress'" class="progress">
            <span class="progress-track" aria-hidden="true"><i :style="{ width: (cell.row.percent || 0) + '%' }"></i></span>
            <span class="progress-text">{{ cell.value }}</span>
          </span>
          <template v-else>{{ cell.value }}</template>
        </q-td>
      </template>
    </q-table>`,
  props: { first: Array, columns: Array, label: String },
  data() {
    return { rows: [...this.first], asked: -1 };
  },
  mounted() {
    this.$el.querySelector(".q-table__middle")?.setAttribute("tabindex", "0");
    this.$el.querySelector(".q-table__middle")?.setAttribute("aria-label", this.label);
    this.$el.querySelector(".q-table__middle")?.setAttribute("role", "region");
  },
  methods: {
    scrolled({ to }) {
      // Once for each page: the next one is asked for while the end is still out of sight.
      if (to > this.rows.length - 40 && this.asked !== this.rows.length) {
        this.asked = this.rows.length;
        this.$emit("more", this.rows.length);
      }
    },
    append(rows) {
      this.rows = [...this.rows, ...rows];
    },
    update(row) {
      const place = this.rows.findIndex((one) => one.id === row.id);
      if (place >= 0) this.rows.splice(place, 1, { ...this.rows[place], ...row });
    },
  },
};
