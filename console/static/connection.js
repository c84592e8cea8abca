// A console that was started anew, or in which nobody did anything for too long, lets no socket of this page in any more,
// however often it tries: the page is loaded anew, and so comes to the door, which leads back to it.
addEventListener("DOMContentLoaded", () => {
  window.socket?.on("connect_error", async () => {
    const answer = await fetch(location.href, { method: "HEAD" }).catch(() => null);
    if (answer?.status === 401) location.reload();
  });
});
