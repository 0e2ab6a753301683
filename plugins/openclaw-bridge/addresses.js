// Which IP addresses count as the public internet. Everything else (this machine, the cluster, the cloud's
// metadata service) is refused unless the caller's rules allow it.
import { BlockList, isIP, isIPv4 } from "node:net";

// IANA special-purpose registries, RFC 6890 and its updates, without what is globally reachable.
const NOT_PUBLIC_V4 = [
  ["0.0.0.0", 8], // this network
  ["10.0.0.0", 8], // private
  ["100.64.0.0", 10], // carrier-grade NAT, and some clouds' metadata
  ["127.0.0.0", 8], // loopback
  ["169.254.0.0", 16], // link-local, most clouds' metadata
  ["172.16.0.0", 12], // private
  ["192.0.0.0", 24], // protocol assignments
  ["192.0.2.0", 24], // documentation
  ["192.88.99.0", 24], // 6to4 relays
  ["192.168.0.0", 16], // private
  ["198.18.0.0", 15], // benchmarks
  ["198.51.100.0", 24], // documentation
  ["203.0.113.0", 24], // documentation
  ["224.0.0.0", 4], // multicast
  ["240.0.0.0", 4], // reserved, broadcast
];
// Of IPv6 only 2000::/3 is handed out; these parts of it are not public, or carry a v4 address inside.
const NOT_PUBLIC_V6 = [
  ["2001::", 23], // protocol assignments, Teredo
  ["2001:db8::", 32], // documentation
  ["2002::", 16], // 6to4: embeds a v4 address
  ["3fff::", 20], // documentation
];

const notPublic = new BlockList();
for (const [network, prefix] of NOT_PUBLIC_V4) notPublic.addSubnet(network, prefix, "ipv4");
for (const [network, prefix] of NOT_PUBLIC_V6) notPublic.addSubnet(network, prefix, "ipv6");
const globalUnicast = new BlockList();
globalUnicast.addSubnet("2000::", 3, "ipv6");

/** Whether this textual IP address is on the public internet. Anything that is not an address is not. */
export function isPublicAddress(address) {
  if (typeof address !== "string") return false;
  const bare = address.split("%", 1)[0];
  if (isIPv4(bare)) return !notPublic.check(bare, "ipv4");
  if (isIP(bare) !== 6) return false;
  const mapped = v4Mapped(bare);
  if (mapped !== null) return !notPublic.check(mapped, "ipv4");
  return globalUnicast.check(bare, "ipv6") && !notPublic.check(bare, "ipv6");
}

/** The v4 address within ::ffff:a.b.c.d (RFC 4291, 2.5.5.2), else null. */
function v4Mapped(address) {
  // The URL parser writes IPv6 addresses in one canonical way, also the ones with a dotted end.
  const canonical = new URL(`http://[${address}]/`).hostname.slice(1, -1);
  const groups = /^::ffff:([0-9a-f]{1,4}):([0-9a-f]{1,4})$/.exec(canonical);
  if (groups === null) return null;
  const [high, low] = groups.slice(1).map((group) => Number.parseInt(group, 16));
  return [high >> 8, high & 255, low >> 8, low & 255].join(".");
}
