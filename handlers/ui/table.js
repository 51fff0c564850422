// A table whose columns sort and whose rows come in pages, so that 48,000 rows cost no more than 50.
import { button, el } from "./dom.js";
import { count } from "./format.js";

const PAGE = 50;

export class Table {
  #box;
  #columns;
  #rows = [];
  #sorted = null;
  #sort;
  #from = 0;
  #body = el("tbody");
  #foot = el("div", { className: "pager" });
  #heads = new Map();
  #isCurrent;
  #empty;

  // columns have a key, a text, value(row) by which they sort, and cell(row), an element or text; isNumber aligns them to the
  // right. isCurrent(row) marks rows. empty is what is said of no rows.
  constructor(box, { caption, columns, sort, isCurrent, empty }) {
    this.#box = box;
    this.#columns = columns;
    this.#sort = sort;
    this.#isCurrent = isCurrent;
    this.#empty = empty;
    const head = el("tr", {}, columns.map((column) => {
      const cell = el("th", { scope: "col", className: column.isNumber ? "number" : "" },
        button(column.text, () => this.#sortBy(column.key), { className: "sort" }));
      this.#heads.set(column.key, cell);
      return cell;
    }));
    const table = el("table", {}, el("caption", { className: "unseen" }, caption), el("thead", {}, head), this.#body);
    box.replaceChildren(el("div", { className: "table-scroll" }, table), this.#foot);
  }

  // show shows other rows.
  show(rows) {
    this.#rows = rows;
    this.#sorted = null;
    this.draw();
  }

  toStart() {
    this.#from = 0;
  }

  // draw draws the rows that are seen. Where the focus was inside, it stays in the same row.
  draw() {
    this.#sorted ??= this.#inOrder();
    const rows = this.#sorted;
    this.#from = Math.max(0, Math.min(this.#from, Math.floor((rows.length - 1) / PAGE) * PAGE));
    const focused = this.#body.contains(document.activeElement) ? document.activeElement.closest("tr")?.dataset.key : null;
    const shown = rows.slice(this.#from, this.#from + PAGE);
    this.#body.replaceChildren(...shown.map((row) => {
      const isCurrent = this.#isCurrent(row);
      const line = el("tr", { "aria-current": isCurrent ? "true" : null, className: isCurrent ? "is-current" : "" },
        this.#columns.map((column) => el("td", { className: column.isNumber ? "number" : "" }, column.cell(row))));
      line.dataset.key = String(this.#columns[0].value(row));
      return line;
    }));
    if (!rows.length) {
      this.#body.append(el("tr", {}, el("td", { colSpan: this.#columns.length, className: "empty" }, this.#empty())));
    }
    if (focused) [...this.#body.rows].find((line) => line.dataset.key === focused)?.querySelector("a, button")?.focus();
    for (const [key, cell] of this.#heads) {
      if (key === this.#sort.key) cell.setAttribute("aria-sort", this.#sort.isDown ? "descending" : "ascending");
      else cell.removeAttribute("aria-sort");
    }
    this.#drawFoot(rows.length);
  }

  #drawFoot(total) {
    this.#foot.hidden = total <= PAGE;
    if (this.#foot.hidden) return;
    const turn = (by) => {
      this.#from += by;
      this.draw();
      const [back, , on] = this.#foot.children;
      (by > 0 && !on.disabled ? on : back.disabled ? on : back).focus();
    };
    const text = `${count(this.#from + 1)}–${count(Math.min(total, this.#from + PAGE))} of ${count(total)}`;
    const hadFocus = this.#foot.contains(document.activeElement);
    const isBack = hadFocus && document.activeElement === this.#foot.firstChild;
    this.#foot.replaceChildren(
      button("Previous", () => turn(-PAGE), { disabled: this.#from === 0 }),
      el("span", {}, text),
      button("Next", () => turn(PAGE), { disabled: this.#from + PAGE >= total }),
    );
    if (hadFocus) (isBack ? this.#foot.firstChild : this.#foot.lastChild).focus();
  }

  #sortBy(key) {
    this.#sort = { key, isDown: this.#sort.key === key ? !this.#sort.isDown : false };
    this.#sorted = null;
    this.#from = 0;
    this.draw();
  }

  #inOrder() {
    const { value } = this.#columns.find((column) => column.key === this.#sort.key);
    const sign = this.#sort.isDown ? -1 : 1;
    const keyed = this.#rows.map((row) => [value(row), row]);
    keyed.sort(([a], [b]) => {
      if (a === b) return 0;
      if (a === null || b === null) return a === null ? 1 : -1; // what is absent comes last, in both directions
      return sign * (typeof a === "string" ? a.localeCompare(b, "en", { numeric: true }) : a - b);
    });
    return keyed.map(([, row]) => row);
  }
}
