// Stacked bars by day. Colours come from the style sheet, so that they follow the theme.
export default {
  template: `
    <figure class="bars" role="group" :aria-label="label">
      <div class="bars-top">{{ top }}</div>
      <div class="bars-plot" @keydown="move" @mouseleave="at = null">
        <div v-for="(name, day) in names" :key="name" class="bars-day" :class="{ here: day === at }" role="img"
          :aria-label="told(day)" :tabindex="day === stop ? 0 : -1" @mouseenter="show(day)" @focus="show(day)" @blur="at = null">
          <div v-for="(one, place) in series" :key="place" class="bars-part"
            :style="{ height: height(one.values[day]), background: 'var(' + one.colour + ')' }"></div>
        </div>
      </div>
      <div class="bars-ends"><span>{{ names[0] }}</span><span class="bars-told">{{ at === null ? '' : told(at) }}</span>
        <span>{{ names[names.length - 1] }}</span></div>
      <ul v-if="series.length > 1" class="bars-legend">
        <li v-for="(one, place) in series" :key="place"><i :style="{ background: 'var(' + one.colour + ')' }"></i>{{ one.name }}</li>
      </ul>
    </figure>`,
  props: { names: Array, series: Array, label: String, unit: String },
  data() {
    return { at: null, stop: this.names.length - 1 };
  },
  computed: {
    most() {
      const sums = this.names.map((_, day) => this.series.reduce((sum, one) => sum + one.values[day], 0));
      return Math.max(...sums, 1e-9);
    },
    top() {
      return `${this.written(this.most)} ${this.unit}`;
    },
  },
  methods: {
    written: (value) => new Intl.NumberFormat("en", { maximumFractionDigits: value < 10 ? 1 : 0 }).format(value),
    height(value) {
      return value ? `max(2px, ${(100 * value) / this.most}%)` : "0";
    },
    told(day) {
      const parts = this.series.filter((one) => one.values[day]).map((one) => `${one.name} ${this.written(one.values[day])}`);
      return `${this.names[day]}: ${parts.join(", ") || "nothing"}`;
    },
    show(day) {
      this.at = this.stop = day;
    },
    move(event) {
      const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (by === undefined) return;
      event.preventDefault();
      this.stop = Math.max(0, Math.min(this.stop + by, this.names.length - 1));
      this.$nextTick(() => this.$el.querySelectorAll(".bars-day")[this.stop].focus());
    },
  },
};
