import assert from "node:assert/strict";
import { test } from "node:test";
import { isPublicAddress } from "../addresses.js";

const REFUSED = [
  "0.0.0.0", "10.1.2.3", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.16.0.1", "172.31.255.255",
  "192.0.0.192", "192.168.1.1", "198.18.0.1", "224.0.0.1", "255.255.255.255",
  "::", "::1", "fe80::1", "fe80::1%eth0", "fc00::1", "fd00:ec2::254", "ff02::1", "64:ff9b::a00:1", "2002:a00:1::", "2001:db8::1",
  "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:169.254.169.254", "::127.0.0.1", "not an address", "", undefined,
];
const PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:1.1.1.1"];

test("addresses off the public internet are refused, in every spelling", () => {
  assert.deepEqual(REFUSED.filter(isPublicAddress), []);
});

test("addresses on the public internet are not refused", () => {
  assert.deepEqual(PUBLIC.filter((address) => !isPublicAddress(address)), []);
});
