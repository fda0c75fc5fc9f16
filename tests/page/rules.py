"""Rules of accessibility, held against what the browser shows: names, headings, contrasts, sizes of targets."""

# The contrast ratio of each visible text with its background, where it is below what WCAG 2.2 AA requires.
CONTRASTS = """
function channels(colour) {
  const parts = colour.match(/[\\d.]+/g).map(Number);
  const scale = colour.startsWith('color(') ? 255 : 1;
  return {rgb: parts.slice(0, 3).map((part) => part * scale), alpha: parts[3] ?? 1};
}
function luminance(rgb) {
  const [r, g, b] = rgb.map((part) => part / 255).map((part) =>
    part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4);
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}
function over(top, below) {
  return top.rgb.map((part, index) => part * top.alpha + below[index] * (1 - top.alpha));
}
function ground(element) {
  const layers = [];
  for (let one = element; one; one = one.parentElement) {
    const layer = channels(getComputedStyle(one).backgroundColor);
    layers.unshift(layer);
    if (layer.alpha === 1) break;
  }
  return layers.reduce((below, layer) => over(layer, below), [255, 255, 255]);
}
const found = [];
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const node = walker.currentNode, element = node.parentElement;
  if (node.data.trim() === '' || !element.checkVisibility()) continue;
  if (element.closest('.off-screen, .skip, :disabled, option')) continue;
  const style = getComputedStyle(element);
  const below = ground(element), text = over(channels(style.color), below);
  const [light, dark] = [luminance(text), luminance(below)].sort((a, b) => b - a);
  const size = parseFloat(style.fontSize), isLarge = size >= 24 || (size >= 18.66 && Number(style.fontWeight) >= 700);
  const ratio = (light + 0.05) / (dark + 0.05);
  if (ratio >= (isLarge ? 3 : 4.5)) continue;
  found.push(`${ratio.toFixed(2)} of "${node.data.trim().slice(0, 30)}" (${element.className})`);
}
for (const control of document.querySelectorAll('input, select, textarea, button:not(.quiet)')) {
  if (!control.checkVisibility() || control.disabled) continue;
  const style = getComputedStyle(control);
  const edge = luminance(channels(style.borderTopColor).rgb), below = luminance(ground(control.parentElement));
  const ratio = (Math.max(edge, below) + 0.05) / (Math.min(edge, below) + 0.05);
  if (ratio >= 3 || ['radio', 'checkbox'].includes(control.type)) continue;
  found.push(`${ratio.toFixed(2)} of the edge of ${control.id || control.textContent}`);
}
return found;
"""

STRUCTURE = """
const found = [];
const ids = [...document.querySelectorAll('[id]')].map(({id}) => id);
for (const id of new Set(ids)) if (ids.filter((one) => one === id).length > 1) found.push(`id ${id} twice`);
for (const name of ['aria-labelledby', 'aria-describedby', 'for']) {
  for (const element of document.querySelectorAll(`[${name}]`)) {
    for (const id of element.getAttribute(name).split(' ').filter((one) => !ids.includes(one))) {
      found.push(`${name} names ${id}, which is not there`);
    }
  }
}
const headings = [...document.querySelectorAll('h1, h2, h3, h4')].filter((one) => one.checkVisibility())
  .map(({tagName}) => Number(tagName[1]));
if (headings[0] !== 1 || headings.filter((level) => level === 1).length !== 1) found.push(`headings ${headings}`);
if (headings.some((level, index) => index > 0 && level > headings[index - 1] + 1)) found.push(`levels ${headings}`);
if (!document.documentElement.lang) found.push('no language');
if (document.querySelectorAll('main').length !== 1 ||
    !document.querySelector('nav[aria-label]')) found.push('landmarks');
for (const one of document.querySelectorAll('img:not([alt]), th:not([scope]), [tabindex]')) {
  if (!one.hasAttribute('tabindex') || Number(one.getAttribute('tabindex')) > 0) found.push(one.outerHTML.slice(0, 80));
}
for (const one of document.querySelectorAll('[onclick], script:not([src]), style')) {
  found.push(one.outerHTML.slice(0, 80));
}
const width = document.documentElement.scrollWidth;
if (width > innerWidth) found.push(`${width} wide in ${innerWidth}`);
return found;
"""

# WCAG 2.2 AA: 24 pixels in both directions, except for links within a text.
SMALL_TARGETS = """
return [...document.querySelectorAll('button, select, input, textarea, nav a, summary')]
  .filter((one) => one.checkVisibility())
  .map((one) => [one, one.getBoundingClientRect()])
  .filter(([one, box]) => Math.min(box.width, box.height) < (one.type === 'radio' || one.type === 'checkbox' ? 16 : 24))
  .map(([one, box]) => `${one.id || one.textContent}: ${box.width} x ${box.height}`);
"""


def broken_rules(browser):
    """What a reader, a keyboard or a finger would miss in the view that is shown."""
    found = browser.run(STRUCTURE) + browser.run(CONTRASTS) + [f'small: {one}' for one in browser.run(SMALL_TARGETS)]
    controls = browser.run("return [...document.querySelectorAll('a, button, input, select, textarea, progress, "
                           "svg[role], [role=group], table')].filter((one) => one.checkVisibility()).slice(0, 80)")
    return found + [f'no name: {one.get_attribute("outerHTML")[:100]}' for one in controls if not one.accessible_name]


# Of the element that has the focus: what it is, whether the focus can be seen, and whether it lies in the window.
FOCUS = """
const one = document.activeElement, style = getComputedStyle(one), box = one.getBoundingClientRect();
const banner = document.getElementById('banner');
const floor = banner.hidden ? innerHeight : banner.getBoundingClientRect().top;
const head = one.closest('header, .skip') ? 0 : document.querySelector('header').getBoundingClientRect().bottom;
return {name: one.tagName === 'BODY' ? '' : `${one.tagName} ${one.id || one.textContent.slice(0, 30) || one.value}`,
  isSeen: style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2,
  isInside: box.bottom > head && box.top < floor};
"""
