"use strict";
(() => {
  // A link of `drakkar dashboard` carries a token behind the #, which no browser sends to a server.
  // It fills the form; whose token it is, the user sees after pressing the button.
  const token = location.hash.slice(1);
  if (!token) return;
  history.replaceState(null, "", location.pathname);
  document.querySelector("[name=token]").value = token;
  document.querySelector("form.stack button").focus();
})();
