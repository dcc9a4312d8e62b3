"""Key ids of the published test keys. Distributions refuse every document they sign.

Their seeds stand in `licensing/vectors/test-keys.json`, so that anybody can sign with them.
"""

from typing import Final

TEST_KEY_IDS: Final = frozenset(
    {
        "0705b7a83f48b7a22e5877b5b4ef28160ca940ef03fc5c0c550eb0df374489e3",
        "0c149c4f6728ef1e9062f7b48a47b272cc94e6eda7e779cab87e90aa14b4d52d",
        "0e2d3cbbfdae61bec8bace587ed5a6c1d489341aa7559f89b9dccd9e1c4ea3c8",
        "2299aaecfcb39d3fef5dcc7d2a8f3b74b92580aa4e3655c776a2caf1fb24d29c",
        "28b24fe3374cf2ed7aa9299a38a83b00631e43ca063b9e0abbb4d5dcf626b66e",
        "29378a25dd20413a28156cd68d86fe8883749ce9df7aa4f4a0014c53cd8d12e3",
        "360fe3367b5a43f6c5ca321f558da39bc9acd780669e4cc931bfcd2d48e9953c",
        "457295cda585b9989932b87fa4448fe2422877eee3407f4a094eb046ba2f1987",
        "5384f94a9f15ed14bb84608705e4f4dc3a07302763b8bd4ba44cd9fc8464e571",
        "567a052eafb35639ccb3a5295cae02325534b8dff85a8fc9d1ba1d15a36e1867",
        "598c3b08020d13e2f46427f35e7c17d333dbd8d157b6ccfaf1ebbe5882fed2ae",
        "62a551277c7ea59b39fdf67ccec555ca80ae19965af7a05a5ec213dd729b89fd",
        "74961f25b187f5ea301b08f04bcc15c2cde4357ca700ff8838466ae09169052b",
        "8af27a60fc4756b708df8773ed811ceeba6d45f0babc57c943dfd424face87ca",
        "9316603b3bfa3a0527ffea2b2a30b333573aa55f9984b68f58a77b8b4b7ca8fb",
        "955222d82e4f4d4e1f2c631dd7cab1816d5caf45402f3ea05e79db39a4b503c4",
        "b8e2269bc2a33d9a264c8a9918859a2ebd0568fda3d5537165a245cbe655aad5",
        "be6f5fe91e25cf25382ab3fb84f93946a18830513abd72c91348122970c6ed35",
        "bf3ad4ca544e263910992e65833f6d18ace06af53c33bc5c5a303a956aefb887",
        "c3833a6abec6d95b54392ebfa275eb256f1f72d1516f047341e3af8117922031",
        "da81ee94b31cce929ca1755e6dbae21037db48d328ce75febd687cfaad98d1d2",
        "e5fb6b2e1ea6a078d73c5c055234bdb491bb4c0f46ca8947f35c5d8063c6a41c",
        "ee263335f6bdedbee583d30b57f6c0abcd73d407982165589be90392debbedd2",
        "fd99ec0a654008ff2615e617b765f25444a8c6b6fca55bb5c0281dc85358b218",
    }
)
"""SHA-256 of each key's SubjectPublicKeyInfo in DER, 64 lower-case hex digits."""
