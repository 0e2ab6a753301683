;; Imports a function under the name of an interface that plugins get.
(component
  (import "servicetsunami:plugin/log@0.1.0" (func)))
