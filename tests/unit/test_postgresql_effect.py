"""What is said of a vacuum that left dead rows behind."""

from worker_service.domain.outcome import Verdict
from worker_service.operations.postgresql.effect import Effect, judged
from worker_service.operations.postgresql.holders import Holder


def slot(name: str, *, catalogues_only: bool) -> Holder:
    return Holder(
        kind="replication slot",
        key=name,
        user="",
        program="",
        state="active",
        seconds=None,
        catalogues_only=catalogues_only,
    )


DECODER, STANDBY = slot("decoder", catalogues_only=True), slot("standby", catalogues_only=False)


class TestJudged:
    def test_of_both_kinds_of_rows_those_of_catalogues_alone_are_kept_for_decoding(self) -> None:
        verdict, reason = judged(Effect(removed=1, remaining=5, in_catalogues=2), [DECODER])

        assert verdict is Verdict.PARTIALLY_EFFECTIVE
        assert reason.startswith("removed 1 dead row; 2 dead rows cannot be removed while older transactions may")
        assert "replication slot 'decoder' (active); 3 dead rows remain: newer" in reason

    def test_for_a_standby_all_are_kept(self) -> None:
        verdict, reason = judged(Effect(remaining=5, in_catalogues=2), [DECODER, STANDBY])

        assert verdict is Verdict.NO_EFFECT
        assert reason.startswith("5 dead rows cannot be removed")
        assert reason.endswith("replication slot 'decoder' (active); replication slot 'standby' (active)")

    def test_one_for_decoding_is_not_blamed_for_rows_of_users(self) -> None:
        verdict, reason = judged(Effect(removed=1, remaining=5), [DECODER])

        assert verdict is Verdict.EFFECTIVE
        assert "decoder" not in reason
        assert judged(Effect(remaining=5), [DECODER])[0] is Verdict.NO_EFFECT
