// Doubly linked list through its nodes: joining and leaving cost nothing and allocate nothing, and a node
// that dies leaves by itself. Owns nothing. Threads: one.
#pragma once

namespace nvsock {

template <typename Node>
class List;

// Node derives from Link<Node>; from several, of different types, to be in several lists.
template <typename Node>
class Link {
 public:
  Link() = default;
  ~Link() { unlist(); }
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  bool listed() const { return after_ != this; }
  void unlist() {
    before_->after_ = after_;
    after_->before_ = before_;
    before_ = after_ = this;
  }

 private:
  friend class List<Node>;
  void insert_before(Link& other) {
    before_ = other.before_;
    after_ = &other;
    before_->after_ = this;
    other.before_ = this;
  }

  Link* before_ = this;
  Link* after_ = this;
};

template <typename Node>
class List {
 public:
  bool empty() const { return !ends_.listed(); }
  Node& front() { return static_cast<Node&>(*ends_.after_); }  // REQUIRES: not empty
  Node& pop_front() {
    Node& node = front();
    static_cast<Link<Node>&>(node).unlist();
    return node;
  }
  // `visit` leaves the list as it is.
  template <typename Visit>
  void for_each(Visit visit) const {
    for (const Link<Node>* link = ends_.after_; link != &ends_; link = link->after_)
      visit(static_cast<const Node&>(*link));
  }
  // REQUIRES: the node is in no list of this type.
  void push_back(Link<Node>& node) { node.insert_before(ends_); }
  void push_front(Link<Node>& node) { node.insert_before(*ends_.after_); }

 private:
  Link<Node> ends_;
};

}  // namespace nvsock
