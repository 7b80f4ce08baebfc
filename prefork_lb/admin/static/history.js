// What the page has seen of a number: a ring of samples, and the line that is drawn of them.

export const SAMPLES = 90; // one a second
const MINUTE = 60;
const CEILING = 0.86; // of the height, for the greatest sample
const CLASSES = ["2xx", "3xx", "4xx", "5xx"];

export class History {
  #ring = new Float32Array(SAMPLES).fill(NaN);
  #next = 0;
  version = 0;

  push(value) {
    this.#ring[this.#next] = value ?? NaN;
    this.#next = (this.#next + 1) % SAMPLES;
    this.version += 1;
  }

  /** Begin anew with these, oldest first. */
  fill(values) {
    this.#ring.fill(NaN);
    this.#next = 0;
    for (const value of values) this.push(value);
  }

  greatest() {
    let most = 0;
    for (const value of this.#ring) if (value > most) most = value;
    return most;
  }

  /** Path data for a view box of `width` by `height`, newest at the right; a missing sample leaves a gap. */
  line(width, height, most = this.greatest()) {
    const step = width / (SAMPLES - 1);
    const scale = most > 0 ? (height - 2) * CEILING / most : 0;
    let data = "", pen = "M";
    for (let i = 0; i < SAMPLES; i++) {
      const value = this.#ring[(this.#next + i) % SAMPLES];
      if (value !== value) { // NaN
        pen = "M";
        continue;
      }
      data += `${pen}${(i * step).toFixed(1)} ${(height - 1 - value * scale).toFixed(1)}`;
      pen = "L";
    }
    return data;
  }

  /** The area below the line, from its first sample on. */
  area(width, height, line) {
    if (!line) return "";
    const first = line.slice(1, line.indexOf(" "));
    return `${line.replaceAll("M", "L").replace("L", "M")}L${width} ${height}L${first} ${height}Z`;
  }
}

/** Responses of the last minute by class, from counters that only grow. */
export class RecentCodes {
  #ring = [];

  push(codes) {
    this.#ring.push(this.#read(codes));
    if (this.#ring.length > MINUTE + 1) this.#ring.shift();
  }

  /** Count from these counters on, which are a minute old at most. */
  since(codes) {
    if (codes) this.#ring.splice(0, Infinity, this.#read(codes));
  }

  #read(codes) {
    return CLASSES.map((name) => codes?.[name] ?? 0);
  }

  /** [2xx, 3xx, 4xx, 5xx] */
  counts() {
    const newest = this.#ring.at(-1), oldest = this.#ring[0];
    return newest ? newest.map((value, i) => Math.max(0, value - oldest[i])) : [0, 0, 0, 0];
  }
}
