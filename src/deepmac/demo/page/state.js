// What all parts of the page share.

export const $ = (id) => document.getElementById(id);

export const state = {
  about: null, // what the server says about itself
  album: [], // the open pictures
  at: -1, // which one is shown
  classes: [], // names that were typed or loaded
  threshold: 0.5,
  refine: "none",
  strength: 0.5,
};

export const current = () => state.album[state.at] ?? null;
export const say = (text) => { $("status").textContent = text; };
export const complain = (text) => { $("error").textContent = text; };

export class Refusal extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

export async function trying(job) {
  complain("");
  try {
    return await job();
  } catch (error) {
    complain(error instanceof Refusal ? error.message : `This did not work: ${error.message}`);
    return undefined;
  }
}

// ---- remembered for the next visit ----

export function remember() {
  const { classes, threshold, refine, strength } = state;
  try {
    localStorage.setItem("deepmac", JSON.stringify({ classes, threshold, refine, strength }));
  } catch { /* a browser that keeps nothing */ }
}

export function recall({ threshold: own, refine, refines }) {
  let kept = {};
  try {
    kept = JSON.parse(localStorage.getItem("deepmac")) ?? {};
  } catch { /* nothing, or something else */ }
  const share = (value, otherwise) => (value > 0 && value <= 1 ? value : otherwise);
  state.classes = Array.isArray(kept.classes) ? kept.classes.map(String) : [];
  state.threshold = share(kept.threshold, own);
  state.refine = refines.includes(kept.refine) ? kept.refine : refine;
  state.strength = share(kept.strength, 0.5);
}

export function learnClass(name) {
  if (!name || state.classes.includes(name)) return;
  state.classes.push(name);
  remember();
}
