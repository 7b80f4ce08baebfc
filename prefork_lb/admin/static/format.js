// Numbers and times as people read them.

const THIN = "\u202f";

/** 4 significant digits at most: 0, 0.42, 7.3, 812, 1,234, 12.3k, 4.56M. */
export function count(value) {
  if (value === null || value === undefined) return "–";
  const size = Math.abs(value);
  if (size >= 1e9) return `${trim(value / 1e9)}G`;
  if (size >= 1e6) return `${trim(value / 1e6)}M`;
  if (size >= 1e4) return `${trim(value / 1e3)}k`;
  if (size >= 1000) return Math.round(value).toLocaleString("en");
  if (size >= 100 || Number.isInteger(value)) return String(Math.round(value));
  return size >= 10 ? value.toFixed(1) : value.toFixed(size < 1 ? 2 : 1);
}

function trim(value) {
  return value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** Milliseconds to [number, unit]. */
export function millis(value) {
  if (value === null || value === undefined) return ["–", ""];
  if (value >= 10_000) return [(value / 1000).toFixed(1), "s"];
  if (value >= 1000) return [(value / 1000).toFixed(2), "s"];
  return [value >= 100 ? value.toFixed(0) : value >= 10 ? value.toFixed(1) : value.toFixed(2), "ms"];
}

/** Seconds to the two greatest units: 4 s, 3 min 20 s, 2 h 5 min, 6 d 4 h. */
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}${THIN}s`;
  if (s < 3600) return both(Math.floor(s / 60), "min", s % 60, "s");
  if (s < 86400) return both(Math.floor(s / 3600), "h", Math.floor(s % 3600 / 60), "min");
  return both(Math.floor(s / 86400), "d", Math.floor(s % 86400 / 3600), "h");
}

function both(many, unit, rest, smaller) {
  return rest ? `${many}${THIN}${unit} ${rest}${THIN}${smaller}` : `${many}${THIN}${unit}`;
}

/** Epoch seconds to the viewer's time of day. */
export function clock(epoch) {
  return new Date(epoch * 1000).toLocaleTimeString("en-GB");
}

/** "1 request", "2 requests". */
export function many(number, one, more = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : more}`;
}

/** "a", "a and b", "a, b and c". */
export function listed(words) {
  return words.length < 2 ? words.join("") : `${words.slice(0, -1).join(", ")} and ${words.at(-1)}`;
}
