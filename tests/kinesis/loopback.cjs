// Loaded before the server, which would listen on all addresses: only this machine may reach it.
const { Server } = require("node:net");

const { listen } = Server.prototype;
Server.prototype.listen = function (options, ...rest) {
  return listen.call(this, typeof options === "object" ? { ...options, host: "127.0.0.1" } : options, ...rest);
};
