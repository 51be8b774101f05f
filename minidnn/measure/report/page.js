"use strict";

document.documentElement.classList.add("script");

// --- pickers ---------------------------------------------------------------------------
// The controls of a picker spell a key. Of the panels with the picker's name, the one with that
// key is shown; of the marks in charts, those with that key are marked. Marks also pick.

for (const picker of document.querySelectorAll("[data-picks]")) {
  const named = (kind) => [...document.querySelectorAll(`[data-${kind}]`)].filter(
    (one) => one.getAttribute(`data-${kind}`) === picker.dataset.picks);
  const panels = named("of");
  const marks = named("marked-by");

  const show = () => {
    const controls = [...picker.querySelectorAll("select, input:checked")];
    const key = controls.map((control) => control.value).join("|");
    for (const panel of panels) panel.hidden = panel.dataset.key !== key;
    for (const mark of marks) mark.classList.toggle("picked", mark.dataset.key === key);
  };
  picker.addEventListener("change", show);
  show();

  for (const mark of marks) {
    const pick = () => {
      picker.querySelector("select").value = mark.dataset.key;
      show();
    };
    mark.addEventListener("click", pick);
    mark.addEventListener("pointerenter", (event) => event.pointerType === "mouse" && pick());
  }
}

// --- paper -----------------------------------------------------------------------------
// The style sheet opens tables in print; browsers that cannot do that yet get them opened here.

const closed = () => document.querySelectorAll("details:not([open])");
let opened = [];
addEventListener("beforeprint", () => {
  opened = [...closed()];
  for (const details of opened) details.open = true;
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
});

// --- loop nests --------------------------------------------------------------------------
// Python wrote down which place of x, w and y each product touches; here that is only drawn.

const loops = JSON.parse(document.getElementById("orders").textContent);
const PACE = 250; // milliseconds per product while playing
const TRAIL = 8; // products before this one that stay lightly marked

function element(name, className, text) {
  const made = document.createElement(name);
  if (className) made.className = className;
  if (text) made.textContent = text;
  return made;
}

// Where a place of an array (rows, columns, channels) lies.
function position(place, columns, channels) {
  const pixel = Math.floor(place / channels);
  return { row: Math.floor(pixel / columns), column: pixel % columns, channel: place % channels };
}

const lineOf = (place) => Math.floor(place / loops.line);

// Draw a map: a box per pixel, in it a cell per channel. Returns the cells in memory's order.
function drawMap(into, name, size, channels) {
  const map = into.appendChild(element("div", "map"));
  map.style.gridTemplateColumns = `repeat(${size}, max-content)`;
  map.append(element("span", "", name));
  const cells = [];
  for (let i = 0; i < size * size; i++) {
    const pixel = map.appendChild(element("div", "pixel"));
    pixel.style.gridTemplateColumns = `repeat(${Math.min(channels, 4)}, max-content)`;
    for (let c = 0; c < channels; c++) cells.push(pixel.appendChild(element("div", "cell")));
  }
  return cells;
}

class Pane {
  constructor(section) {
    this.section = section;
    this.name = section.dataset.nest;
    this.maps = section.querySelector(".maps");
    this.memory = section.querySelector(".memory");
  }

  start(channels) {
    this.channels = channels;
    this.order = loops.orders[channels][this.name];
    this.maps.replaceChildren();
    this.memory.replaceChildren();
    this.cells = {
      x: drawMap(this.maps, "x", loops.size, channels),
      w: drawMap(this.maps, "w", loops.taps, channels),
      y: drawMap(this.maps, "y", loops.size, channels),
    };
    this.memoryCells = this.cells.x.map(() => this.memory.appendChild(element("div", "cell")));
    for (const cells of [this.cells.x, this.memoryCells]) {
      cells.forEach((cell, place) => cell.classList.toggle("odd", lineOf(place) % 2 === 1));
    }
  }

  mark(cells, places, step) {
    for (const cell of cells) cell.classList.remove("here", "before");
    for (let i = Math.max(0, step - TRAIL); i < step; i++) cells[places[i]].classList.add("before");
    cells[places[step]].classList.remove("before");
    cells[places[step]].classList.add("here");
  }

  show(step) {
    const { x, w, y, stored } = this.order;
    for (const name of ["x", "w", "y"]) this.mark(this.cells[name], this.order[name], step);
    this.mark(this.memoryCells, x, step);

    const input = position(x[step], loops.size, this.channels);
    const tap = position(w[step], loops.taps, this.channels);
    const output = position(y[step], loops.size, this.channels);
    const index = { oy: output.row, ox: output.column, c: tap.channel, ky: tap.row, kx: tap.column };
    for (const [loop, value] of Object.entries(index)) {
      this.section.querySelector(`[data-loop="${loop}"]`).textContent = value;
    }
    const at = (p) => `[${p.row},${p.column},${p.channel}]`;
    this.section.querySelector(".now").textContent =
      `y${at(output)} += x${at(input)} * w${at(tap)}. ` +
      `x: place ${x[step]}, line ${lineOf(x[step])}. ` +
      (stored[step] ? "The sum is written to y." : "The sum stays in a register.");
    this.section.querySelector(".counts").textContent =
      `Another line than the product before, so far: x ${this.jumps(x, step)}, ` +
      `w ${this.jumps(w, step)}, y ${this.jumps(y, step)} times.`;
  }

  jumps(places, step) {
    let count = 0;
    for (let i = 1; i <= step; i++) count += lineOf(places[i]) !== lineOf(places[i - 1]);
    return count;
  }
}

function loopNests() {
  const nest = document.getElementById("nest");
  const slider = document.getElementById("nest-step");
  const play = document.getElementById("nest-play");
  const panes = [...nest.querySelectorAll("[data-nest]")].map((section) => new Pane(section));
  let timer = null;

  const stop = () => {
    clearInterval(timer);
    timer = null;
    play.textContent = "Play";
  };
  const show = () => {
    const step = Number(slider.value);
    slider.setAttribute("aria-valuetext", `${step + 1} of ${Number(slider.max) + 1}`);
    for (const pane of panes) pane.show(step);
  };
  const move = (by) => {
    slider.value = Number(slider.value) + by; // the slider keeps it in range
    show();
    if (slider.value === slider.max) stop();
  };
  const start = () => {
    stop();
    const channels = nest.querySelector("input[type=radio]:checked").value;
    for (const pane of panes) pane.start(channels);
    slider.max = panes[0].order.x.length - 1;
    slider.value = 0;
    show();
  };

  slider.addEventListener("input", () => { stop(); show(); });
  document.getElementById("nest-back").addEventListener("click", () => { stop(); move(-1); });
  document.getElementById("nest-next").addEventListener("click", () => { stop(); move(1); });
  play.addEventListener("click", () => {
    if (timer !== null) return stop();
    if (slider.value === slider.max) slider.value = 0;
    play.textContent = "Pause";
    timer = setInterval(move, PACE, 1);
  });
  for (const radio of nest.querySelectorAll("input[type=radio]")) radio.addEventListener("change", start);
  start();
}

loopNests();
