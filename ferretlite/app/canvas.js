// The canvas of the playground: a picture, boxes that react to hover, and gestures of mouse, pen
// and keyboard. Python holds the state; this file draws `items` and sends gestures.
// Every coordinate is in the image frame: pixels, x to the right, y down.

const SVG = "http://www.w3.org/2000/svg";
const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
const KEYS = "keys"; // the pointer of a press that the keyboard began
const STEP = 8; // pixels that an arrow key moves the cursor; 1 with Shift
const CLICK = 4; // a press that moves fewer screen pixels is a click
const CSS = `
.fl{position:relative;max-width:640px;font:13px/1.4 system-ui,sans-serif;color:#1c2430}
.fl svg{display:block;width:100%;height:auto;touch-action:none;user-select:none;cursor:crosshair;
 border-radius:6px;outline-offset:-3px}
.fl svg:focus-visible{outline:3px solid #2a5bd7}
.fl svg *{vector-effect:non-scaling-stroke}
.fl .box rect{fill:transparent;stroke-width:2.5;pointer-events:all}
.fl .box:hover rect{fill:currentColor;fill-opacity:.18;stroke-width:4.5}
.fl .quiet{pointer-events:none}.fl .quiet rect{pointer-events:none;stroke:#fff;stroke-width:3.5}
.fl .quiet .dash,.fl .draft{stroke:#111;stroke-dasharray:6 5;stroke-width:3.5;fill:none}
.fl [data-mode=move] .handle{cursor:grab}.fl .handle rect{stroke-opacity:0}
.fl .handle:hover rect{stroke-opacity:1;stroke-dasharray:5 4;stroke-width:2;fill-opacity:.06}
.fl text{font-weight:700;fill:#fff;stroke:#111;stroke-width:3px;paint-order:stroke}
.fl .tip{position:absolute;padding:1px 8px;border-radius:4px;color:#fff;white-space:nowrap;
 pointer-events:none;z-index:2;max-width:100%;box-sizing:border-box;overflow:hidden;text-overflow:ellipsis}
.fl .busy{position:absolute;right:8px;top:8px;padding:3px 10px 3px 8px;border-radius:14px;
 background:#1c2430e6;color:#fff;pointer-events:none;display:flex;gap:7px;align-items:center}
.fl [hidden]{display:none}
.fl .busy i{width:12px;height:12px;border:2px solid #fff;border-right-color:transparent;
 border-radius:50%;animation:fl-turn .8s linear infinite}
@keyframes fl-turn{to{transform:rotate(1turn)}}`;

function add(parent, name, attributes = {}) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  parent.append(node);
  return node;
}

function addHtml(parent, name, className) {
  const node = document.createElement(name);
  node.className = className;
  parent.append(node);
  return node;
}

const corners = ([x1, y1, x2, y2]) => ({ x: x1, y: y1, width: x2 - x1, height: y2 - y1 });
const area = (item) => (item.box[2] - item.box[0]) * (item.box[3] - item.box[1]);
const clamp = (value, low, high) => Math.max(low, Math.min(value, high));
const holds = ([x1, y1, x2, y2], [x, y]) => x1 <= x && x <= x2 && y1 <= y && y <= y2;

function render({ model, el }) {
  const root = addHtml(el, "div", "fl");
  addHtml(root, "style", "").textContent = CSS;
  const svg = add(root, "svg", { tabindex: 0, role: "application", "data-lm-suppress-shortcuts": "true" });
  const picture = add(svg, "image", { preserveAspectRatio: "none" });
  const layer = add(svg, "g"), draft = add(svg, "g"), cursor = add(svg, "g");
  const tip = addHtml(root, "div", "tip"), busy = addHtml(root, "div", "busy");
  addHtml(busy, "i", "");
  addHtml(busy, "span", "").textContent = "working …";
  tip.hidden = busy.hidden = true;

  const view = Math.random().toString(36).slice(2); // several views may show one model
  let count = 0, released = 0, timer = 0; // of gestures
  let pending = ""; // id of this view's last gesture, until it is answered
  let press = null; // { pointer, start, path, moved, item } while a button or Space is down
  let at = null; // cursor of the keyboard

  const size = () => model.get("size"); // [height, width]
  const scale = () => svg.getBoundingClientRect().width / size()[1] || 1; // screen pixels a pixel

  // --- what Python says

  function drawItem(item) {
    const kind = item.index !== undefined ? "box handle" : item.label ? "box" : "quiet";
    const group = add(layer, "g", { class: kind, color: item.color || "#111" });
    if (item.src) add(group, "image", { href: item.src, preserveAspectRatio: "none", ...corners(item.box) });
    else if (item.dot) {
      const [cx, cy] = item.dot;
      add(group, "circle", { cx, cy, r: item.radius / scale(), fill: item.color, stroke: "#fff" });
    } else {
      add(group, "rect", { ...corners(item.box), fill: "none", stroke: "currentColor" });
      if (kind === "quiet") add(group, "rect", { ...corners(item.box), class: "dash" });
    }
    if (item.mark) {
      const [x, y] = item.dot || item.box;
      const font = 14 / scale();
      const text = { x: x + font / 2, y: Math.max(y - font / 2, font), "font-size": font };
      add(group, "text", text).textContent = item.mark;
    }
    if (item.label) group.addEventListener("pointerenter", () => showTip(item));
    group.addEventListener("pointerleave", () => (tip.hidden = true));
  }

  function showTip({ label, box, color }) {
    const [h, w] = size(), above = box[1] / h > 0.08;
    tip.textContent = label; // as text, never as HTML
    tip.style.background = color || "#111";
    tip.style.left = "0"; // where it is as wide as its text
    tip.hidden = false;
    const wanted = scale() * (box[0] > w / 2 ? box[2] : box[0]) - (box[0] > w / 2 ? tip.offsetWidth : 0);
    tip.style.left = `${clamp(wanted, 0, root.clientWidth - tip.offsetWidth)}px`;
    tip.style.top = above ? "auto" : `${(100 * box[3]) / h}%`;
    tip.style.bottom = above ? `${100 - (100 * box[1]) / h}%` : "auto";
  }

  function draw() {
    const [height, width] = size();
    svg.setAttribute("viewBox", `0 0 ${width} ${height}`);
    svg.setAttribute("aria-label", model.get("help"));
    svg.dataset.mode = model.get("mode");
    for (const [key, value] of Object.entries({ width, height, href: model.get("picture") }))
      picture.setAttribute(key, value);
    layer.replaceChildren();
    tip.hidden = true;
    const items = model.get("items");
    const boxes = items.filter((item) => item.box).sort((a, b) => area(b) - area(a));
    const isHandle = (item) => item.index !== undefined; // below boxes, and so are their names
    for (const item of [
      ...boxes.filter(isHandle),
      ...boxes.filter((item) => !isHandle(item)),
      ...items.filter((item) => item.dot),
    ]) drawItem(item);
  }

  function wait() { // a spinner, unless the answer comes at once
    clearTimeout(timer);
    timer = setTimeout(() => (busy.hidden = false), 150);
  }

  function finish() {
    if (model.get("busy")) return wait();
    if (pending && model.get("answered") !== pending) return; // of another view, or an earlier one
    pending = "";
    draw();
    clearTimeout(timer);
    busy.hidden = true;
    if (released) root.dataset.milliseconds = Math.round(performance.now() - released);
    released = 0;
  }

  // --- what the user does

  function send(gesture, done = true) {
    if (!done && pending) return; // Python is still at the one before
    pending = `${view}-${++count}`;
    if (done) {
      released = performance.now();
      wait();
    }
    model.send({ ...gesture, done, id: pending });
  }

  function place(event) {
    const frame = svg.getBoundingClientRect(), [h, w] = size();
    const x = ((event.clientX - frame.left) / frame.width) * w;
    const y = ((event.clientY - frame.top) / frame.height) * h;
    return [clamp(x, 0, w), clamp(y, 0, h)];
  }

  function begin(start, pointer) {
    const mode = model.get("mode");
    const held = model.get("items").filter((i) => i.index !== undefined && holds(i.box, start));
    const item = held.sort((a, b) => area(a) - area(b))[0];
    if (mode !== "move" || item) press = { pointer, mode, start, path: [start], moved: false, item };
  }

  function drag(to) {
    const { mode, start, path } = press;
    if (Math.hypot(to[0] - start[0], to[1] - start[1]) * scale() >= CLICK) press.moved = true;
    if (!press.moved) return;
    path.push(to);
    draft.replaceChildren();
    if (mode === "pen") {
      const line = path.map((p) => p.join(",")).join(" ");
      const look = { fill: "none", stroke: "#ffe600", "stroke-width": 5, "stroke-linecap": "round" };
      add(draft, "polyline", { points: line, ...look });
    } else if (mode !== "move") add(draft, "rect", { ...corners(stretch(to)), class: "draft" });
    if (mode === "move" || model.get("live")) send(read(to), false);
  }

  function stretch([x, y]) {
    const [a, b] = press.mode === "corner" ? [0, 0] : press.start;
    return [Math.min(a, x), Math.min(b, y), Math.max(a, x), Math.max(b, y)];
  }

  function read(to) { // the gesture that the press stands for
    const { mode, start, path, moved, item } = press;
    if (mode === "move") {
      const [x1, y1, x2, y2] = item.box;
      const by = [to[0] - start[0], to[1] - start[1]];
      return { kind: "move", index: item.index, at: [(x1 + x2) / 2 + by[0], (y1 + y2) / 2 + by[1]] };
    }
    if (mode === "corner" || !moved) return { kind: "point", at: to };
    if (mode === "pen") return { kind: "pen", path };
    return { kind: "box", box: stretch(to) };
  }

  function end(to) {
    if (press.mode !== "move" || press.moved) send(read(to));
    release();
  }

  function cancel() { // an object that was moved goes back
    if (press?.mode === "move" && press.moved) send(read(press.start));
    release();
  }

  function release() {
    press = null;
    draft.replaceChildren();
  }

  svg.addEventListener("pointerdown", (event) => {
    if (event.button || !event.isPrimary) return; // a second finger
    cancel(); // of a press with the keyboard
    svg.focus({ preventScroll: true });
    at = null;
    drawCursor();
    begin(place(event), event.pointerId);
    if (press) svg.setPointerCapture(event.pointerId);
  });
  const owns = (event) => press && press.pointer === event.pointerId;
  svg.addEventListener("pointermove", (event) => owns(event) && drag(place(event)));
  svg.addEventListener("pointerup", (event) => owns(event) && end(place(event)));
  svg.addEventListener("pointercancel", (event) => owns(event) && cancel());

  function drawCursor() {
    cursor.replaceChildren();
    if (!at) return;
    const [x, y] = at, r = 9 / scale();
    for (const [color, width] of [["#fff", 4], ["#111", 1.5]])
      add(cursor, "path", { d: `M${x - r} ${y}h${2 * r}M${x} ${y - r}v${2 * r}`, stroke: color, "stroke-width": width });
  }

  function readKey({ key, ctrlKey, metaKey }) { // what a key does, or undefined
    if (ARROWS[key]) return "step";
    if (key === "Backspace" || (key === "z" && (ctrlKey || metaKey))) return "undo";
    return { " ": "press", Enter: "click", Escape: "cancel" }[key];
  }

  function key(event) {
    const action = readKey(event), [h, w] = size();
    if (!action) return;
    event.preventDefault();
    event.stopPropagation();
    if (action === "cancel") return cancel();
    if (press && press.pointer !== KEYS) return; // the mouse is at it
    if (event.repeat && action !== "step") return; // a key that is held counts once
    if (action === "undo") return send({ kind: "undo" });
    at = at || [w / 2, h / 2];
    if (action === "step") {
      const [dx, dy] = ARROWS[event.key], step = event.shiftKey ? 1 : STEP;
      at = [clamp(at[0] + dx * step, 0, w), clamp(at[1] + dy * step, 0, h)];
      if (press) drag(at);
    } else if (press) end(at);
    else {
      begin(at, KEYS);
      if (press && action === "click") end(at);
    }
    drawCursor();
  }
  svg.addEventListener("keydown", key);
  svg.addEventListener("blur", () => {
    if (press?.pointer === KEYS) cancel();
    at = null;
    drawCursor();
  });

  for (const name of ["picture", "size", "items"]) model.on(`change:${name}`, draw);
  for (const name of ["answered", "busy"]) model.on(`change:${name}`, finish);
  const observer = new ResizeObserver(draw); // dots and letters keep their size on the screen
  observer.observe(svg);
  draw();
  return () => observer.disconnect();
}

export default { render };
