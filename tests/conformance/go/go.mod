module example.com/smart-router/conformance

go 1.21
