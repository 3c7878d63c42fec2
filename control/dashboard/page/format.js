// Figures and times as people read them.

// How long ago, in the two largest units, as kubectl writes it.
export function age(time, now = Date.now()) {
  if (!time) return "–";
  return duration((now - Date.parse(time)) / 1000);
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const units = [
    ["d", 86_400],
    ["h", 3_600],
    ["m", 60],
    ["s", 1],
  ];
  const first = units.findIndex(([, size]) => whole >= size);
  if (first < 0) return "0s";
  const [unit, size] = units[first];
  const count = Math.floor(whole / size);
  const [nextUnit, nextSize] = units[first + 1] ?? [];
  const rest = nextUnit && count < 10 ? Math.floor((whole % size) / nextSize) : 0;
  return rest > 0 ? `${count}${unit}${rest}${nextUnit}` : `${count}${unit}`;
}

const SUFFIXES = { n: 1e-9, u: 1e-6, m: 1e-3, k: 1e3, M: 1e6, G: 1e9, T: 1e12, P: 1e15, Ki: 2 ** 10, Mi: 2 ** 20, Gi: 2 ** 30, Ti: 2 ** 40, Pi: 2 ** 50 };

// A Kubernetes quantity as a number.
export function quantity(text) {
  const [, number, suffix] = /^([-+0-9.eE]+)([A-Za-z]*)$/.exec(String(text ?? "0")) ?? [null, "0", ""];
  return Number(number) * (SUFFIXES[suffix] ?? 1);
}

export function bytes(count) {
  if (count === null || count === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let value = count;
  let index = 0;
  while (value >= 1024 && index < units.length - 1) {
    value /= 1024;
    index += 1;
  }
  return `${value >= 100 || index === 0 ? Math.round(value) : value.toFixed(1)} ${units[index]}`;
}

export function milliseconds(microseconds) {
  return microseconds === null || microseconds === undefined ? "–" : `${(microseconds / 1000).toFixed(1)} ms`;
}

export function plural(count, word) {
  return `${count} ${word}${count === 1 ? "" : "s"}`;
}

export function clock(time) {
  return time ? new Date(time).toLocaleString() : "";
}
