"""What `hebbax.brainevent` says where there is no brainevent that it can serve."""

import sys
import types

import pytest

import hebbax.brainevent


def test_without_brainevent_there_is_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "brainevent", None)
    with pytest.raises(ImportError, match="there is no brainevent; install hebbax with the extra 'brainevent'"):
        hebbax.brainevent.enable()


def test_an_old_brainevent_is_refused(monkeypatch):
    old = types.SimpleNamespace(__version__="0.2.1", __version_info__=(0, 2, 1))
    monkeypatch.setitem(sys.modules, "brainevent", old)
    with pytest.raises(ImportError, match=r"got brainevent 0\.2\.1, expected 0\.3\.0 or newer"):
        hebbax.brainevent.enable()


def test_to_switch_it_off_without_brainevent_is_nothing(monkeypatch):
    monkeypatch.setitem(sys.modules, "brainevent", None)
    monkeypatch.setattr(hebbax.brainevent, "_own", {})
    hebbax.brainevent.disable()
