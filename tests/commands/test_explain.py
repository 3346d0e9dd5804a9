import pytest

from metarun.results.explained import Explained


def test_it_prints_words_for_people_and_a_record_for_programs(metarun):
    code, out, err = metarun("explain", "algo=maml")
    assert (code, err) == (0, "")
    assert "L_query(θ_K)" in out
    assert "arXiv" in out
    assert "algo.inner_lr=<by data>" in out
    _, out, _ = metarun("explain", "algo.inner_lr")
    assert "0.4 with data=omniglot" in out
    assert "conf/algo/reptile.yaml:4 1e-3 (algo=reptile)" in out
    code, out, err = metarun("explain", "algo.inner_lr", "format=json")
    assert Explained.from_json(out).type == "a number"
    assert len(metarun("explain")[1].splitlines()) < 60


def test_a_choice_of_the_users_own_is_explained(metarun, tmp_path):
    (tmp_path / "mine" / "data").mkdir(parents=True)
    (tmp_path / "mine/data/waves.yaml").write_text(
        "# @package _global_\n# Waves of mine.\ndefaults: [{/model: mlp}, _self_]\ndata:\n  _target_: ours.Waves\n"
        "  height: 3 # in metres\n"
    )
    code, out, _ = metarun("explain", "data=waves", "-cd", "mine")
    assert code == 0
    assert "Waves of mine." in out
    assert "data.height=3  in metres" in out
    assert "model=mlp" in out
    assert "in metres" in metarun("explain", "height", "--config-dir", "mine")[1]
    (tmp_path / "mine/data/waves.yaml").write_text("height: [\n")
    code, out, err = metarun("explain", "data=waves", "-cd", "mine")
    assert (code, out) == (2, "")
    assert "its file cannot be read" in err


@pytest.mark.parametrize(
    ("key", "says"), [("algo.iner_lr", "did you mean algo.inner_lr?"), ("algo=nope", "expected one of")]
)
def test_a_wrong_key_is_a_line_and_exit_2(metarun, key, says):
    code, out, err = metarun("explain", key)
    assert (code, out) == (2, "")
    assert says in err
    assert err.count("\n") == 1


def test_help_of_a_setting_is_its_explanation_and_of_nothing_known_is_refused(metarun):
    assert metarun("help", "algo.inner_lr") == metarun("explain", "algo.inner_lr")
    code, out, err = metarun("help", "evl")
    assert (code, out) == (2, "")
    assert "did you mean eval?" in err


def test_a_verb_is_explained_by_its_help(metarun):
    code, out, _ = metarun("explain", "eval")
    assert code == 0
    assert out == metarun("eval", "--help")[1] == metarun("help", "eval")[1] == metarun("eval", "-h")[1]
    code, out, err = metarun("explain", "eval", "format=json")
    assert (code, out) == (2, "")
    assert "expected nothing after the verb, whose help is text" in err


def test_a_default_is_said_with_those_of_choices_with_their_own(metarun):
    out = " ".join(metarun("explain", "algo.inner_steps")[1].split())
    assert "5 with algo=maml_pp, algo=meta_lstm, algo=reptile" in out
    out = " ".join(metarun("explain", "data.shots")[1].split())
    assert "default 10; 1 with data=images" in out
    assert "see also data.eval_shots" in out
