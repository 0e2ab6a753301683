// Lines for the trace of the call; the gateway bounds their number and length. Under Node they are kept for tests.

let write;
/** Lines that were written where there is no gateway: `[level, message]`. */
export const written = [];

const at = (level) => (message) => (write ? write(level, String(message)) : written.push([level, String(message)]));
export const log = { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };

/** Called once, by the component. */
export const writeTo = (function_) => {
    write = function_;
};
