// The stream of the instance's state, and its way back. EventSource comes back by itself when a connection breaks, and gives up on any
// answer but 200: then, and when nothing has come for a while (a machine that slept), a new one is opened.

const SILENT_MS = 8_000; // deltas come each second
const RETRY_MS = [500, 1000, 2000, 4000];

export class Stream {
  #source = null;
  #attempts = 0;
  #heard = 0;
  #retry = null;

  /** `on` has snapshot, history, delta and event (given the data), opened(), and lost(): called each time that a connection fails. */
  constructor(on) {
    this.on = on;
    setInterval(() => {
      if (this.#source && performance.now() - this.#heard > SILENT_MS) this.#again();
    }, 1000);
  }

  open() {
    this.close();
    this.#heard = performance.now();
    const source = this.#source = new EventSource("api/v1/stream");
    source.onopen = () => {
      this.#heard = performance.now();
    };
    for (const kind of ["snapshot", "history", "delta", "event"]) {
      source.addEventListener(kind, (message) => {
        this.#heard = performance.now();
        if (kind === "snapshot") {
          this.#attempts = 0;
          this.on.opened();
        }
        this.on[kind](JSON.parse(message.data));
      });
    }
    source.onerror = () => {
      this.on.lost();
      if (source.readyState === EventSource.CLOSED) this.#again();
    };
  }

  close() {
    clearTimeout(this.#retry);
    this.#source?.close();
    this.#source = null;
  }

  #again() {
    this.close();
    this.on.lost();
    this.#retry = setTimeout(() => this.open(), RETRY_MS[Math.min(this.#attempts++, RETRY_MS.length - 1)]);
  }
}
