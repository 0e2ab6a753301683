;; Runs for ever while it is instantiated: a module's start function, in a component without any function.
(component
  (core module $m (func $f (loop $again (br $again))) (start $f))
  (core instance (instantiate $m)))
