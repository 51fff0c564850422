// The token of this tab. It is kept until the tab is closed, and nowhere else.
import { $ } from "./dom.js";

const KEY = "portmaster-token";

export class Session {
  #asking = null;
  #declined = false;
  #onChange;

  // onChange is called when somebody gives or forgets a token unasked. A token that a call asked for is used by that call.
  constructor(onChange) {
    this.#onChange = onChange;
    $("token-form").addEventListener("submit", (event) => {
      event.preventDefault(); // the token goes into a header, never into an address
      $("token-dialog").close("given");
    });
    $("token-cancel").addEventListener("click", () => $("token-dialog").close(""));
    $("token-button").addEventListener("click", () => this.#press());
    this.#show();
  }

  get token() {
    return sessionStorage.getItem(KEY) ?? "";
  }

  // renew is called when the server refused a token, or the lack of one. It answers whether there is another one to try. All
  // calls that are refused wait for the same question, and after a refusal to answer it nobody is asked again unbidden.
  async renew(refused) {
    if (this.token !== refused) return true;
    if (this.#declined) return false;
    const why = refused ? "The server does not accept this token, or no longer does." : "This server needs a token.";
    const given = await this.#ask(why);
    this.#declined = !given;
    return given;
  }

  async #press() {
    if (this.token) sessionStorage.removeItem(KEY);
    else if (!(await this.#ask(""))) return;
    this.#declined = false;
    this.#show();
    this.#onChange();
  }

  #ask(why) {
    this.#asking ??= new Promise((resolve) => {
      const dialog = $("token-dialog");
      const field = $("token-field");
      $("token-why").textContent = why;
      field.value = "";
      dialog.returnValue = "";
      dialog.addEventListener("close", () => {
        const token = dialog.returnValue === "given" ? field.value.trim() : "";
        field.value = "";
        this.#asking = null;
        if (token) sessionStorage.setItem(KEY, token);
        this.#show();
        resolve(token !== "");
      }, { once: true });
      dialog.showModal();
    });
    return this.#asking;
  }

  #show() {
    $("token-button").textContent = this.token ? "Forget token" : "Enter a token";
  }
}
