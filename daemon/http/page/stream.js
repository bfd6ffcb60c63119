// The stream of `/v1/events`. A browser itself reconnects, with `Last-Event-ID`, where a connection ends. It gives up
// where the server refuses (503), and does not notice a connection that says nothing more.

const SILENCE_SECONDS = 15; // the server says something every 5 s
const CHECK_SECONDS = 3;

/** Keep a stream open. `on` has: status(message), event(message), lost(). */
export function follow(url, on) {
  let source, heardAt;

  function open() {
    heardAt = Date.now();
    source = new EventSource(url);
    source.addEventListener("error", on.lost);
    source.addEventListener("event", ({ data }) => on.event(JSON.parse(data)));
    source.addEventListener("status", ({ data }) => {
      heardAt = Date.now();
      on.status(JSON.parse(data));
    });
  }

  open();
  setInterval(() => {
    if (source.readyState !== EventSource.CLOSED && Date.now() - heardAt < SILENCE_SECONDS * 1000) return;
    on.lost();
    source.close();
    open();
  }, CHECK_SECONDS * 1000);
}
