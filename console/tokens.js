// A text, token by token: how likely each was, and what else might have stood there. Text nodes only, never HTML.
export default {
  template: `
    <div class="tokens" role="group" :aria-label="label" @keydown="move" @mouseleave="at = null">
      <span v-for="(token, index) in tokens" :key="index" class="token" :class="{ here: index === at }"
        :style="{ '--doubt': doubt(token) }" :tabindex="index === stop ? 0 : -1" :aria-label="told(token)" role="img"
        @mouseenter="show(index, $event)" @focus="show(index, $event)" @blur="at = null">{{ token.text }}</span>
      <div v-if="at !== null" class="token-card" :style="{ left: x + 'px', top: y + 'px' }" aria-hidden="true">
        <div class="token-line" v-for="(other, index) in lines" :key="index" :class="{ chosen: other.chosen }">
          <span class="token-bar" :style="{ width: 100 * (other.share || 0) + '%' }"></span>
          <code>{{ visible(other.text) }}</code><span>{{ percent(other.share) }}</span>
        </div>
      </div>
    </div>`,
  props: { tokens: Array, label: String },
  data: () => ({ at: null, stop: 0, x: 0, y: 0 }),
  computed: {
    lines() {
      const token = this.tokens[this.at];
      const others = token.others.map((other) => ({ ...other, chosen: other.text === token.text }));
      return others.some((other) => other.chosen) ? others : [{ ...token, chosen: true }, ...others];
    },
  },
  methods: {
    doubt: (token) => (token.share === null ? 0 : 1 - token.share),
    percent: (share) => (share === null ? "" : share < 0.001 ? "< 0.1 %" : `${(100 * share).toFixed(1)} %`),
    visible: (text) => text.replaceAll("\n", "↵").replaceAll("\t", "⇥").replace(/^ +| +$/g, (blanks) => "␣".repeat(blanks.length)),
    told(token) {
      return `${this.visible(token.text)} ${this.percent(token.share)}`;
    },
    show(index, event) {
      const own = event.target.getBoundingClientRect();
      const whole = this.$el.getBoundingClientRect();
      this.at = this.stop = index;
      this.x = Math.max(0, Math.min(own.left - whole.left, whole.width - 216));
      this.y = own.bottom - whole.top + 6;
    },
    move(event) {
      const by = { ArrowRight: 1, ArrowLeft: -1, Home: -Infinity, End: Infinity }[event.key];
      if (event.key === "Escape") this.at = null;
      if (by === undefined) return;
      event.preventDefault();
      this.stop = Math.max(0, Math.min(this.stop + by, this.tokens.length - 1));
      this.$nextTick(() => this.$el.querySelectorAll(".token")[this.stop].focus());
    },
  },
};
