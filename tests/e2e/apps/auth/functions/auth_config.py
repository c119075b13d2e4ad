"""The issuer that the tests run beside the server."""

import os

from reactive_store import OidcProvider

providers = [OidcProvider(domain=os.environ["E2E_ISSUER"], application_id="the-app")]
