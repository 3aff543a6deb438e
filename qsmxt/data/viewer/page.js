'use strict';
// Script of a report. Maps and labels lie in the page as compressed NIfTI files on one grid, whose axes run to the
// right, the front and the top. niivue shows them; where WebGL2 is missing, a plain canvas does.

const DATATYPES = { 2: Uint8Array, 4: Int16Array };
const PLANES = [[1, 2, 0], [0, 2, 1], [0, 1, 2]]; // across, up, through: sagittal, coronal, axial
const ENDS = ['LR', 'PA', 'IS'];
const KEYS = {
  ArrowLeft: [-1, 0, 0], ArrowRight: [1, 0, 0], ArrowDown: [0, -1, 0], ArrowUp: [0, 1, 0],
  PageDown: [0, 0, -1], PageUp: [0, 0, 1],
};

async function inflated(element) {
  const text = atob(element.textContent), bytes = new Uint8Array(text.length);
  for (let i = 0; i < text.length; i++) bytes[i] = text.charCodeAt(i);
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream('gzip'))).arrayBuffer();
}

// A volume: its file, shape, size of voxels in mm, affine, and value(position).
async function volume(element) {
  const file = await inflated(element), head = new DataView(file);
  const shape = [1, 2, 3].map(axis => head.getInt16(40 + 2 * axis, true));
  const size = [1, 2, 3].map(axis => head.getFloat32(76 + 4 * axis, true));
  const affine = [0, 1, 2].map(row => [0, 1, 2, 3].map(column => head.getFloat32(280 + 16 * row + 4 * column, true)));
  const numbers = new DATATYPES[head.getInt16(70, true)](file, head.getFloat32(108, true));
  const step = head.getFloat32(112, true) || 1;
  const at = p => p[0] + shape[0] * (p[1] + shape[1] * p[2]);
  return { file, shape, size, affine, number: p => numbers[at(p)], value: p => step * numbers[at(p)] };
}

let library;
function niivueLibrary() {
  library ??= inflated(document.getElementById('niivue')).then(code => {
    const script = document.createElement('script');
    script.textContent = new TextDecoder().decode(code);
    document.head.append(script);
    if (!window.niivue) throw new Error('niivue was not admitted');
    return window.niivue;
  });
  return library;
}

function hasWebGL2() {
  const context = document.createElement('canvas').getContext('webgl2');
  context?.getExtension('WEBGL_lose_context')?.loseContext();
  return Boolean(context);
}

async function drawnByNiivue(canvas, moved) {
  const lib = await niivueLibrary();
  const nv = new lib.Niivue({
    logLevel: 'silent', backColor: [0, 0, 0, 1], crosshairColor: [0.35, 0.86, 1, 0.8], crosshairWidth: 0.5,
    multiplanarShowRender: lib.SHOW_RENDER.NEVER, multiplanarForceRender: false, isRadiologicalConvention: false,
    isForceMouseClickToVoxelCenters: true, isNearestInterpolation: true, dragMode: lib.DRAG_MODE.pan,
    dragAndDropEnabled: false, scrollRequiresFocus: false, fontMinPx: 12,
    fontColor: [1, 0.88, 0.24, 1], showAllOrientationMarkers: true, tileMargin: 2,
  });
  nv.onLocationChange = place => moved(Array.from(place.vox).slice(0, 3));
  await nv.attachToCanvas(canvas, false);
  const planes = { all: lib.SLICE_TYPE.MULTIPLANAR, 0: lib.SLICE_TYPE.SAGITTAL, 1: lib.SLICE_TYPE.CORONAL,
    2: lib.SLICE_TYPE.AXIAL };
  const image = (shown, low, high) => lib.NVImage.loadFromUrl({
    url: shown.file.slice(0), name: 'map.nii', colormap: 'gray', cal_min: low, cal_max: high,
  });
  return {
    async show(map, overlay) {
      const images = [await image(map.volume, map.low, map.high)];
      if (overlay) {
        images.push(await image(overlay.volume, 0, 1));
        images[1].setColormapLabel(colours(overlay));
      }
      nv.volumes = [];
      nv.setAtlasOutline(overlay ? 1 : 0);
      images.forEach(one => nv.addVolume(one));
    },
    move(place) {
      nv.scene.crosshairPos = nv.vox2frac(place);
      nv.drawScene();
    },
    plane(name) { nv.setSliceType(planes[name]); },
  };
}

// Colours of labels, the first ones those of masks; neighbours in the list differ in hue.
function colours(overlay) {
  const listed = Object.entries(overlay.labels), table = { R: [0], G: [0], B: [0], A: [0], I: [0], labels: [''] };
  listed.forEach(([index, name], at) => {
    const colour = overlay.colours?.[at] ?? hue(at);
    ['R', 'G', 'B'].forEach((channel, i) => table[channel].push(colour[i]));
    table.A.push(0); // niivue draws the outline at full strength
    table.I.push(Number(index));
    table.labels.push(name);
  });
  return table;
}

function hue(at) {
  const turn = (at * 0.618034) % 1;
  return [0, 1 / 3, 2 / 3].map(third => Math.round(255 * (0.55 + 0.45 * Math.cos(2 * Math.PI * (turn - third)))));
}

function drawnPlainly(canvas, moved) {
  const pen = canvas.getContext('2d');
  let map, overlay, table, place = [0, 0, 0], chosen = [0, 1, 2], tiles = [];

  function tile(index) {
    const [across, up, through] = PLANES[index], { shape } = map.volume;
    const picture = new ImageData(shape[across], shape[up]), at = [0, 0, 0];
    at[through] = place[through];
    const label = (i, j) => {
      const p = [...at];
      p[across] = i, p[up] = j;
      return i < 0 || j < 0 || i >= shape[across] || j >= shape[up] ? 0 : overlay.volume.number(p);
    };
    for (let j = 0; j < shape[up]; j++) {
      for (let i = 0; i < shape[across]; i++) {
        at[across] = i, at[up] = j;
        const level = 255 * (map.volume.value(at) - map.low) / (map.high - map.low);
        const own = overlay ? label(i, j) : 0;
        const rim = own && [[1, 0], [-1, 0], [0, 1], [0, -1]].some(([a, b]) => label(i + a, j + b) !== own);
        const entry = rim ? table.I.indexOf(own) : -1;
        const colour = entry > 0 ? [table.R[entry], table.G[entry], table.B[entry]] : [level, level, level];
        picture.data.set([...colour, 255], 4 * (i + shape[across] * (shape[up] - 1 - j)));
      }
    }
    return picture;
  }

  function draw() {
    if (!map) return;
    const { shape, size } = map.volume, mm = shape.map((n, axis) => n * size[axis]);
    canvas.width = canvas.clientWidth, canvas.height = canvas.clientHeight;
    const stacked = canvas.height > canvas.width && chosen.length > 1;
    const sum = (side, over) => chosen.reduce((total, index) => over(total, mm[PLANES[index][side]]), 0);
    const add = (a, b) => a + b;
    const scale = stacked
      ? Math.min(canvas.width / sum(0, Math.max), canvas.height / sum(1, add))
      : Math.min(canvas.width / sum(0, add), canvas.height / sum(1, Math.max));
    pen.fillStyle = '#000';
    pen.fillRect(0, 0, canvas.width, canvas.height);
    pen.imageSmoothingEnabled = false;
    pen.font = '14px sans-serif';
    let left = stacked ? 0 : (canvas.width - scale * sum(0, add)) / 2, top = 0;
    tiles = chosen.map(index => {
      const [across, up] = PLANES[index], picture = tile(index);
      const sheet = new OffscreenCanvas(picture.width, picture.height);
      sheet.getContext('2d').putImageData(picture, 0, 0);
      const box = { index, left, top, width: scale * mm[across], height: scale * mm[up] };
      pen.drawImage(sheet, box.left, box.top, box.width, box.height);
      const x = box.left + box.width * (place[across] + 0.5) / shape[across];
      const y = box.top + box.height * (1 - (place[up] + 0.5) / shape[up]);
      pen.fillStyle = 'rgba(90, 220, 255, 0.7)';
      pen.fillRect(box.left, y, box.width, 1);
      pen.fillRect(x, box.top, 1, box.height);
      pen.fillStyle = '#ffe13d';
      pen.fillText(ENDS[across][0], box.left + 3, box.top + box.height / 2 - 4);
      pen.fillText(ENDS[across][1], box.left + box.width - 12, box.top + box.height / 2 - 4);
      if (stacked) top += box.height; else left += box.width;
      return box;
    });
  }

  canvas.addEventListener('pointerdown', event => {
    const box = tiles.find(one => event.offsetX >= one.left && event.offsetX < one.left + one.width
      && event.offsetY >= one.top && event.offsetY < one.top + one.height);
    if (!box) return;
    const [across, up] = PLANES[box.index], { shape } = map.volume, next = [...place];
    next[across] = Math.floor(shape[across] * (event.offsetX - box.left) / box.width);
    next[up] = Math.floor(shape[up] * (1 - (event.offsetY - box.top) / box.height));
    moved(next);
  });
  new ResizeObserver(draw).observe(canvas.parentElement);
  return {
    async show(shown, outlined) {
      map = shown, overlay = outlined, table = outlined && colours(outlined);
      draw();
    },
    move(next) {
      place = next;
      draw();
    },
    plane(name) {
      chosen = name === 'all' ? [0, 1, 2] : [Number(name)];
      draw();
    },
  };
}

class Viewer {
  constructor(element) {
    this.element = element;
    this.layout = JSON.parse(element.querySelector('.layout').textContent);
    this.canvas = element.querySelector('canvas');
    this.said = element.querySelector('output');
    this.ranges = [...element.querySelectorAll('input[type=range]')];
    this.place = [0, 0, 0];
    this.volumes = {};
  }

  chosen(name) { return this.element.querySelector(`[data-choice=${name}]:checked`)?.value ?? 'none'; }

  async loaded(kind, index) {
    const entry = this.layout[kind][index];
    entry.volume ??= await volume(this.element.querySelector(`[data-${kind}="${index}"]`));
    return entry;
  }

  async start() {
    const map = await this.loaded('maps', 0), moved = place => this.move(place, true);
    this.ranges.forEach((range, axis) => { range.max = map.volume.shape[axis] - 1; });
    const useNiivue = document.getElementById('niivue') && hasWebGL2();
    this.drawn = useNiivue ? await drawnByNiivue(this.canvas, moved) : drawnPlainly(this.canvas, moved);
    this.element.dataset.renderer = useNiivue ? 'niivue' : 'plain';
    this.listen();
    await this.show();
    this.move(this.layout.start ?? map.volume.shape.map(n => Math.floor(n / 2)));
    this.element.dataset.ready = 'true';
  }

  listen() {
    this.element.addEventListener('input', event => {
      const axis = this.ranges.indexOf(event.target);
      if (axis < 0) return;
      const next = [...this.place];
      next[axis] = Number(event.target.value);
      this.move(next);
    });
    this.element.addEventListener('change', event => {
      if (event.target.dataset.choice === 'plane') this.drawn.plane(event.target.value);
      else if (event.target.dataset.choice) this.show();
    });
    this.canvas.parentElement.addEventListener('keydown', event => {
      event.stopPropagation(); // niivue has keys of its own
      if (!KEYS[event.key]) return;
      event.preventDefault();
      this.move(this.place.map((at, axis) => at + KEYS[event.key][axis]));
    }, true);
  }

  async show() {
    const overlay = this.chosen('overlay');
    this.map = await this.loaded('maps', Number(this.chosen('map')));
    this.overlay = overlay === 'none' ? undefined : await this.loaded('overlays', Number(overlay));
    await this.drawn.show(this.map, this.overlay);
    this.drawn.plane(this.chosen('plane'));
    this.move(this.place);
  }

  move(place, byRenderer = false) {
    this.place = place.map((at, axis) => Math.max(0, Math.min(this.map.volume.shape[axis] - 1, Math.round(at))));
    this.ranges.forEach((range, axis) => { range.value = this.place[axis]; });
    if (!byRenderer || this.element.dataset.renderer === 'plain') this.drawn.move(this.place);
    this.tell();
  }

  tell() {
    const { affine } = this.map.volume, value = this.map.volume.value(this.place);
    const mm = affine.map(row => this.place.reduce((sum, at, axis) => sum + row[axis] * at, row[3]).toFixed(1));
    const sign = this.map.low < 0 && value >= 0 ? '+' : '';
    const label = this.overlay?.labels[this.overlay.volume.number(this.place)];
    this.said.textContent = `${this.map.name}: ${sign}${value.toFixed(this.map.digits)} ${this.map.unit}`.trim()
      + `${label ? `, ${label}` : ''} (x ${mm[0]}, y ${mm[1]}, z ${mm[2]} mm)`;
  }
}

const seen = new IntersectionObserver(entries => entries.filter(entry => entry.isIntersecting).forEach(entry => {
  seen.unobserve(entry.target);
  new Viewer(entry.target).start().catch(error => {
    entry.target.dataset.problem = error.message;
    entry.target.hidden = true;
  });
}), { rootMargin: '200px' });
if (window.DecompressionStream) {
  for (const element of document.querySelectorAll('.viewer')) {
    element.hidden = false;
    seen.observe(element);
  }
}
addEventListener('beforeprint', () => document.querySelectorAll('details').forEach(d => { d.open = true; }));
