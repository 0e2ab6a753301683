;; Imports a function of the log that there is not.
(component
  (import "servicetsunami:plugin/log@0.1.0" (instance (export "read" (func (result string))))))
