// What a plugin imports.

export { anything, choice, flag, integer, list, number, object, optional, text } from "./types.js";
export { credentialRejected, done, invalid, later, refused, unexpected } from "./outcome.js";
export { Request, del, get, patch, post, put } from "./request.js";
export { allow, ask, deny } from "./policy.js";
export { log } from "./log.js";
