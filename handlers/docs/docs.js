// Starts Swagger UI on this server's own openapi.yaml. All addresses are relative, so that the page works below any prefix that
// a proxy puts before it.
"use strict";

window.ui = SwaggerUIBundle({
  url: "../openapi.yaml",
  dom_id: "#operations",
  deepLinking: true, // the address names the operation that is open
  docExpansion: "list",
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false, // a token is forgotten with the page
  validatorUrl: null, // asks no other server whether the document is valid
});
