;; Two modules of 20 MiB each: neither is too large, both together are.
(component
  (core module $one (memory 320))
  (core module $other (memory 320))
  (core instance (instantiate $one))
  (core instance (instantiate $other)))
