;; Asks for 4 GiB to begin with.
(component
  (core module $m (memory 65536))
  (core instance (instantiate $m)))
