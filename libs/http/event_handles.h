// Owners of libevent's objects. Internal to the component.
#pragma once

#include <event2/bufferevent.h>
#include <event2/event.h>
#include <event2/listener.h>

#include <memory>

#include "base/clock.h"

namespace optserve::http {

struct EventDeleter {
  void operator()(event_base* base) const { event_base_free(base); }
  void operator()(evconnlistener* listener) const { evconnlistener_free(listener); }
  void operator()(bufferevent* buffer) const { bufferevent_free(buffer); }
  void operator()(event* timer) const { event_free(timer); }
};
template <class T>
using EventPtr = std::unique_ptr<T, EventDeleter>;

inline timeval to_timeval(milliseconds time) {
  return {static_cast<time_t>(time.count() / 1000), static_cast<suseconds_t>(time.count() % 1000 * 1000)};
}

}  // namespace optserve::http
