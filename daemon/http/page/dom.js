// Makes elements as they are described. What is as described is left alone: focus, a selected text, a scroll position.
import { printable } from "./format.js";

const SEEN = new Set(["title", "aria-label"]); // attributes whose text somebody reads
const IN_SVG = new Set(["svg", "use", "path"]);

/** Describe an element: `h("td", { class: "num" }, "12")`. With a `key` it is kept when its siblings change. */
export function h(tag, attributes, ...children) {
  return { tag, attributes, children: children.flat().filter((child) => child != null && child !== false) };
}

/** Describe the shape of a state, which says without colour what its word says. */
export function shape(state) {
  return h("svg", { class: "shape", "aria-hidden": "true" }, h("use", { href: `#shape-${state}` }));
}

/** Make the children of a node as described: elements, of which all or none have a key, and texts. */
export function render(parent, ...children) {
  const keyed = children[0]?.attributes?.key == null ? null : removeOthers(parent, children);
  let next = parent.firstChild;
  for (const child of children) {
    let node = keyed ? keyed.get(child.attributes.key) : next;
    if (node?.tag !== child.tag || !node) node = create(child);
    if (node === next) next = next.nextSibling;
    else place(parent, node, next);
    if (child.tag) update(node, child);
    else if (node.shown !== child) node.data = printable((node.shown = child)); // text never becomes markup
  }
  while (next) {
    const after = next.nextSibling;
    next.remove();
    next = after;
  }
}

/** Remove the children that are no longer described. Return the others by their keys. */
function removeOthers(parent, children) {
  const keys = new Set(children.map((child) => child.attributes.key));
  for (const node of [...parent.childNodes]) if (!keys.has(node.described?.key)) node.remove();
  return new Map([...parent.childNodes].map((node) => [node.described.key, node]));
}

function create({ tag }) {
  if (!tag) return document.createTextNode("");
  const made = IN_SVG.has(tag) ? document.createElementNS("http://www.w3.org/2000/svg", tag) : document.createElement(tag);
  return Object.assign(made, { tag, described: {} });
}

function update(node, { attributes, children }) {
  for (const name of Object.keys({ ...node.described, ...attributes })) {
    const value = attributes[name];
    if (name === "key" || node.described[name] === value) continue;
    if (value == null || value === false) node.removeAttribute(name);
    else node.setAttribute(name, SEEN.has(name) ? printable(value) : value);
  }
  node.described = attributes;
  render(node, ...children);
}

/** Insert a node or move it, with the focus, which a browser takes from what is moved. */
function place(parent, node, next) {
  const focused = node.contains(document.activeElement) && document.activeElement;
  parent.insertBefore(node, next);
  if (focused) focused.focus({ preventScroll: true });
}
