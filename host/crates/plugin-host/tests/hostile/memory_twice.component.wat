;; Two modules of 20 MiB each: neither is too large, both together are.
(component
  (core module $m (memory 320))
  (core instance (instantiate $m))
  (core instance (instantiate $m)))
