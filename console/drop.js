// A place for a file: dropped on it, or chosen. It goes to the element's own address, as the framework's uploader sends it.
export default {
  template: `
    <div class="drop" :class="{ over }" @dragover.prevent="over = true" @dragleave="over = false" @drop.prevent="dropped">
      <label class="button primary drop-button" :class="{ waiting: sent !== null }">
        <input type="file" :aria-label="label" :disabled="sent !== null" @change="chosen">Choose a file</label>
      <span>or drop it here</span>
      <span class="muted" role="status">{{ told }}</span>
    </div>`,
  props: { url: String, label: String },
  data() {
    return { over: false, sent: null, problem: "" };
  },
  computed: {
    told() {
      return this.problem || (this.sent === null ? "" : `sending: ${Math.round(100 * this.sent)} %`);
    },
  },
  methods: {
    chosen(event) {
      this.send(event.target.files[0]);
      event.target.value = "";
    },
    dropped(event) {
      this.over = false;
      this.send(event.dataTransfer.files[0]);
    },
    send(file) {
      if (!file || this.sent !== null) return;
      const form = new FormData();
      form.append("file", file, file.name);
      const request = new XMLHttpRequest();
      request.upload.onprogress = (event) => (this.sent = event.total ? event.loaded / event.total : 0);
      request.onloadend = () => {
        this.sent = null;
        this.problem = request.status === 200 ? "" : "It did not arrive. Try again, or sign in anew.";
      };
      this.sent = 0;
      this.problem = "";
      request.open("POST", (window.path_prefix || "") + this.url);
      request.send(form);
    },
  },
};
