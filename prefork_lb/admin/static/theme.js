// Loaded before the first paint, so that a chosen theme does not flash. No choice: the system's.
"use strict";
try {
  const chosen = localStorage.getItem("theme");
  if (chosen) document.documentElement.dataset.theme = chosen;
} catch { /* Storage is switched off: the system's theme. */ }
