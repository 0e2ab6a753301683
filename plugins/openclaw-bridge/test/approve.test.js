import assert from "node:assert/strict";
import { test } from "node:test";
import { sweep } from "../approve.js";

const LISTED = "a".repeat(64);
const STRANGER = "b".repeat(64);
const allowed = new Map([[LISTED, new Set(["operator.read", "operator.write"])]]);
const quiet = { info: () => {} };

function pairingWith({ pending = [], paired = [] }) {
  const approved = [];
  return { approved, list: async () => ({ pending, paired }), approve: async (requestId, options) => approved.push([requestId, options]) };
}

test("a listed device with listed scopes is approved", async () => {
  const pairing = pairingWith({ pending: [{ requestId: "r1", deviceId: LISTED, scopes: ["operator.write"] }] });
  assert.equal(await sweep(allowed, pairing, quiet), false);
  assert.deepEqual(pairing.approved, [["r1", { callerScopes: ["operator.read", "operator.write"] }]]);
});

test("a stranger and a scope beyond the listed ones are not approved", async () => {
  const pending = [
    { requestId: "r1", deviceId: STRANGER, scopes: [] },
    { requestId: "r2", deviceId: STRANGER, scopes: ["operator.read"] },
    { requestId: "r3", deviceId: LISTED, scopes: ["operator.read", "operator.admin"] },
  ];
  const pairing = pairingWith({ pending });
  await sweep(allowed, pairing, quiet);
  assert.deepEqual(pairing.approved, []);
});

test("it is settled once every listed device is paired", async () => {
  assert.equal(await sweep(allowed, pairingWith({ paired: [{ deviceId: LISTED }] }), quiet), true);
  assert.equal(await sweep(allowed, pairingWith({ paired: [{ deviceId: STRANGER }] }), quiet), false);
});
