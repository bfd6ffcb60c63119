// The stream of `/v1/events`, opened again whenever it ends or falls silent.

const SILENCE_SECONDS = 15; // the server says something every 5 s
const MOST_SECONDS = 10; // longest wait before another try

/**
 * Keep a stream open. The browser itself reconnects with `Last-Event-ID` where a connection ends; this does it
 * where the browser gives up: a refusal (503), or a connection that says nothing more.
 * `on` has: status(message), event(message), connected(), lost().
 */
export function follow(url, on) {
  let source, silence, delay = 1;

  function open() {
    source = new EventSource(url);
    source.addEventListener("status", ({ data }) => {
      heard();
      on.status(JSON.parse(data));
    });
    source.addEventListener("event", ({ data }) => on.event(JSON.parse(data)));
    source.addEventListener("error", () => {
      on.lost();
      if (source.readyState === EventSource.CLOSED) again();
    });
  }

  function heard() {
    delay = 1;
    clearTimeout(silence);
    silence = setTimeout(() => { on.lost(); again(); }, SILENCE_SECONDS * 1000);
    on.connected();
  }

  function again() {
    clearTimeout(silence);
    source.close();
    setTimeout(open, delay * 1000);
    delay = Math.min(MOST_SECONDS, delay * 2);
  }

  open();
}
