;; Imports the power to send requests by itself.
(component
  (import "wasi:http/outgoing-handler@0.2.6" (instance)))
