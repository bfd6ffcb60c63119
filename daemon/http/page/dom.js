// Builds and changes elements. Text is always set as text: nothing that a server sent becomes markup.

/** Return a new element: `element("td", { class: "num" }, "12")`. Children are elements or texts. */
export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) made.setAttribute(name, "");
    else if (value !== false && value != null) made.setAttribute(name, value);
  }
  made.append(...children);
  return made;
}

/** Return the shape of a state, which says without colour what its word says. */
export function shape(state) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "shape");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#shape-${state}`);
  svg.append(use);
  return svg;
}

/** Set an element's text if it differs: an unchanged cell costs nothing to lay out. */
export function setText(node, text) {
  if (node.shown !== text) node.textContent = node.shown = text;
}

/** Set an attribute if it differs. */
export function setAttribute(node, name, value) {
  if (node.getAttribute(name) !== value) node.setAttribute(name, value);
}
