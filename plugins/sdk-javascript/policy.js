// What a routing policy answers.

const route = ({ instance = null, model = null } = {}) => ({ instance, model });

/** It may go ahead; where it goes is left to the gateway, unless it is said. */
export const allow = (to) => ({ tag: "allow", val: route(to) });
/** Whoever called reads the reason. */
export const deny = (reason) => ({ tag: "deny", val: reason });
/** A person must agree first: of these roles, or whoever the tenant's rules name. */
export const ask = (reason, { roles = [], secondPerson = false } = {}) => ({
    tag: "ask",
    val: { reason, roles, secondPerson, route: route() },
});
