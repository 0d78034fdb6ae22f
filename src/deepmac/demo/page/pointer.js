// Mouse, pen and fingers on the picture.

import { grip, holds } from "./boxes.js";
import { $, current, state } from "./state.js";

const CURSORS = { "1100": "nwse-resize", "0011": "nwse-resize", "0110": "nesw-resize", "1001": "nesw-resize" };

// `page` knows what to do: view, changed(), picked(), full(), said(), space(), point().
export function wirePointer(page) {
  const canvas = $("canvas"), { view } = page;
  const fingers = new Map(); // of touches: id -> [x, y] on the canvas
  let drag = null, pinch = null;

  const reach = (event) => (event.pointerType === "touch" ? 22 : 8) / view.scale;
  const onTag = (event) => {
    const [x, y] = view.onCanvas(event), more = event.pointerType === "touch" ? 10 : 0;
    return view.tag && x >= view.tag[0] - more && x <= view.tag[2] + more &&
      y >= view.tag[1] - more && y <= view.tag[3] + more;
  };

  // What a press at this place would take hold of.
  function grasp(event) {
    const { boxes } = current(), [x, y] = view.position(event), box = boxes.selected;
    if (page.space() || event.button === 1) return { kind: "pan" };
    if (box && onTag(event)) return { kind: "move", number: box.number };
    const held = box && grip(box, x, y, reach(event));
    if (held) return { kind: "edges", number: box.number, held };
    const inside = box && x > box.xyxy[0] && x < box.xyxy[2] && y > box.xyxy[1] && y < box.xyxy[3];
    if (inside && (event.ctrlKey || event.metaKey || event.altKey)) return { kind: "move", number: box.number };
    return { kind: "new", number: null };
  }

  // Whether a click corrects the selected box's mask: it lies in that box, and in no smaller one.
  function corrects(event) {
    const { boxes } = current(), box = boxes.selected, [x, y] = view.position(event);
    if (!state.about?.clicks || !box || !holds(box.xyxy, x, y)) return false;
    return boxes.holding(x, y)[0] === box;
  }

  canvas.addEventListener("contextmenu", (event) => {
    if (!current() || !corrects(event)) return;
    event.preventDefault();
    page.point(...view.position(event), 0, reach(event));
  });

  function cursor(kind, held) {
    if (kind === "pan") return drag ? "grabbing" : "grab";
    if (kind === "move") return "move";
    if (kind !== "edges") return "crosshair";
    return CURSORS[held.map(Number).join("")] ?? (held[0] || held[2] ? "ew-resize" : "ns-resize");
  }

  canvas.addEventListener("pointerdown", (event) => {
    if (!current()) return;
    if (event.pointerType === "touch") fingers.set(event.pointerId, view.onCanvas(event));
    if (fingers.size === 2) {
      startPinch();
      return;
    }
    if (event.button > 1 || !event.isPrimary || pinch) return;
    event.preventDefault();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    page.coarse = event.pointerType === "touch";
    drag = { ...grasp(event), at: view.position(event), start: [event.clientX, event.clientY], moved: false };
    drag.from = view.onCanvas(event);
    canvas.style.cursor = cursor(drag.kind, drag.held);
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!current()) return;
    if (fingers.has(event.pointerId)) fingers.set(event.pointerId, view.onCanvas(event));
    if (pinch) {
      if (fingers.size === 2) movePinch();
      return;
    }
    if (!drag) {
      const held = grasp(event);
      canvas.style.cursor = cursor(held.kind, held.held);
      return;
    }
    if (!event.isPrimary) return;
    const far = Math.hypot(event.clientX - drag.start[0], event.clientY - drag.start[1]);
    if (!drag.moved && far <= (event.pointerType === "touch" ? 8 : 3)) return;
    follow(event);
  });

  function follow(event) {
    const { boxes } = current(), [x, y] = view.position(event);
    if (drag.kind === "pan") {
      const [cx, cy] = view.onCanvas(event);
      view.pan(cx - drag.from[0], cy - drag.from[1]);
      drag.from = [cx, cy];
      drag.moved = true;
      page.redraw();
      return;
    }
    if (drag.kind === "new" && drag.number === null) {
      if (page.full()) return;
      drag.number = page.add([...drag.at, x, y]).number;
    }
    drag.moved = true;
    const box = boxes.get(drag.number);
    if (!box) return;
    if (drag.kind === "new") boxes.set(box, [...drag.at, x, y]);
    else if (drag.kind === "move") {
      const [x0, y0] = box.xyxy;
      const now = boxes.moveBy(box, x - drag.at[0], y - drag.at[1]);
      drag.at = [drag.at[0] + now.xyxy[0] - x0, drag.at[1] + now.xyxy[1] - y0];
    } else {
      // from where it was taken, so that an edge may pass the one across and come back
      drag.box ??= box.xyxy;
      const at = [x, y, x, y];
      boxes.set(box, drag.box.map((v, i) => (drag.held[i] ? v + at[i] - drag.at[i % 2] : v)));
    }
    page.changed();
  }

  function release(event) {
    fingers.delete(event.pointerId);
    if (pinch) {
      if (!fingers.size) pinch = null;
      return;
    }
    if (!drag || !event.isPrimary) return;
    const { kind, moved } = drag, { boxes } = current();
    drag = null;
    canvas.style.cursor = "";
    if (event.type === "pointercancel") boxes.revert();
    else if (kind === "new" && !moved) {
      if (corrects(event)) {
        page.point(...view.position(event), event.shiftKey ? 0 : 1, reach(event));
        return;
      }
      boxes.selected = boxes.at(...view.position(event));
    }
    if (kind === "pan") return;
    page.finished(moved);
  }
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);

  // ---- two fingers ----

  const spread = () => {
    const [[ax, ay], [bx, by]] = fingers.values();
    return { distance: Math.max(20, Math.hypot(ax - bx, ay - by)), x: (ax + bx) / 2, y: (ay + by) / 2 };
  };

  function startPinch() {
    if (drag) { // the first finger began a box: it was meant otherwise
      if (drag.kind !== "pan") current().boxes.revert();
      drag = null;
      page.changed();
    }
    pinch = spread();
  }

  function movePinch() {
    const now = spread();
    view.zoom(now.distance / pinch.distance, pinch.x, pinch.y);
    view.pan(now.x - pinch.x, now.y - pinch.y);
    pinch = now;
    page.redraw();
  }

  // ---- wheel ----

  canvas.addEventListener("wheel", (event) => {
    if (!current()) return;
    event.preventDefault();
    const unit = event.deltaMode === 1 ? 20 : event.deltaMode === 2 ? 400 : 1;
    if (event.shiftKey) view.pan(-(event.deltaY + event.deltaX) * unit, 0);
    else {
      const by = Math.max(-240, Math.min(240, event.deltaY * unit));
      view.zoom(2 ** (-by / (event.ctrlKey ? 60 : 240)), ...view.onCanvas(event));
    }
    page.redraw();
  }, { passive: false });

  return { dragging: () => drag !== null, drop: () => { drag = null; } };
}
