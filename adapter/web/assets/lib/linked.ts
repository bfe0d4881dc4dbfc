// Viewers that show the same place together. Where the server has found how a photo lies on the reference, its view is
// moved, turned and scaled by that; not one pixel is bent. Where it has not, the photos move by the same share of their
// width, and a user may unlink, move one until both show the same skin, and link again: what was set by hand stays.
import OpenSeadragon from "openseadragon";
import type { SkinMap } from "./skin-map.ts";
import type { Viewer } from "./viewer.ts";

export interface View {
  x: number; // widths of the photo
  y: number;
  size: number; // CSS pixels of the screen for one width of the photo
  turn: number; // degrees clockwise
}

interface ByHand {
  x: number;
  y: number;
  scale: number;
}

const UNMOVED: ByHand = { x: 0, y: 0, scale: 1 };

/** How many CSS pixels wide a photo seen whole is. */
const wholeSize = (viewer: Viewer): number => viewer.viewport.getHomeZoom() * viewer.viewport.getContainerSize().x;

export function viewOf(viewer: Viewer): View {
  const { x, y } = viewer.viewport.getCenter(false);
  const size = viewer.viewport.getZoom(false) * viewer.viewport.getContainerSize().x;
  return { x, y, size, turn: viewer.viewport.getRotation(false) };
}

export function show(viewer: Viewer, view: View, immediately = false): void {
  const { viewport } = viewer;
  if (Math.abs(viewport.getRotation(false) - view.turn) > 0.05) viewport.setRotation(view.turn, immediately);
  viewport.zoomTo(view.size / viewport.getContainerSize().x, undefined, immediately);
  viewport.panTo(new OpenSeadragon.Point(view.x, view.y), immediately);
}

interface Member {
  viewer: Viewer;
  map: SkinMap | null; // from the reference
  hand: ByHand;
}

export class LinkedViewers {
  #members: Member[];
  #reference = 0;
  #linked = true;
  #following = false;

  constructor(viewers: Viewer[]) {
    this.#members = viewers.map((viewer) => ({ viewer, map: null, hand: UNMOVED }));
    for (const member of this.#members) this.#watch(member);
  }

  get linked(): boolean {
    return this.#linked;
  }

  /** Linking keeps what is seen now of photos without a map; the others go where their map says. */
  setLinked(linked: boolean): void {
    if (linked) this.#keepPresentViews();
    this.#linked = linked;
    this.#lead(this.#members[this.#reference]);
  }

  /** Which photo the others follow; their maps, from it, are given anew. */
  setReference(index: number): void {
    this.#reference = index;
    for (const member of this.#members) [member.map, member.hand] = [null, UNMOVED];
    this.#turnBack();
  }

  setMap(index: number, map: SkinMap | null): void {
    const member = this.#members[index];
    if (!member) return;
    member.map = map;
    this.#turnBack();
    this.#lead(this.#members[this.#reference]);
  }

  hasMap = (index: number): boolean => index === this.#reference || !!this.#members[index]?.map;

  isMoved = (index: number): boolean => this.#members[index]?.hand !== UNMOVED;

  /** Move a photo without a map alone by shares of its view; to the right and down are positive. */
  nudge(index: number, x: number, y: number): void {
    const member = this.#members[index];
    if (!member || this.hasMap(index)) return;
    const step = member.viewer.viewport.getBounds().width;
    member.hand = { ...member.hand, x: member.hand.x - x * step, y: member.hand.y - y * step };
    const view = viewOf(member.viewer);
    this.#quietly(() => show(member.viewer, { ...view, x: view.x - x * step, y: view.y - y * step }));
  }

  /** How each photo is moved by hand, as it would stay if all were linked now: x, y and scale; none where none is. */
  get hands(): number[] {
    const hands = this.#members.map((member) => (this.#linked ? member.hand : this.#seen(member)));
    return hands.every((hand) => hand === UNMOVED) ? [] : hands.flatMap(({ x, y, scale }) => [x, y, scale]);
  }

  /** Shown at once while the photos move one by one, whatever their maps say. */
  set hands(given: number[]) {
    const reference = this.#members[this.#reference];
    this.#members.forEach((member, index) => {
      const [x = 0, y = 0, scale = 1] = given.slice(3 * index, 3 * index + 3);
      member.hand = x === 0 && y === 0 && scale === 1 ? UNMOVED : { x, y, scale };
      if (this.#linked || !reference || member === reference) return;
      this.#quietly(() => show(member.viewer, this.#byHand(member, viewOf(reference.viewer)), true));
    });
    this.#lead(reference);
  }

  reset(index: number): void {
    const member = this.#members[index];
    if (member) member.hand = UNMOVED;
    this.#lead(this.#members[this.#reference]);
  }

  swap(): void {
    this.#members.reverse();
    this.#reference = this.#members.length - 1 - this.#reference;
  }

  /** A photo that has just been opened, or whose frame changed size, follows before it may lead. */
  #watch(member: Member): void {
    const { viewer } = member;
    const lead = (): void => this.#lead(member);
    const follow = (): void => queueMicrotask(() => this.#lead(this.#members[this.#reference]));
    viewer.addOnceHandler("open", () => {
      viewer.addHandler("zoom", lead);
      viewer.addHandler("pan", lead);
      viewer.addHandler("resize", follow);
      follow();
    });
  }

  /** How every photo shows what photo `index` shows in `view`. */
  same(index: number, view: View): View[] {
    const member = this.#members[index];
    if (!member) return [];
    const common = this.#inReference(member, view);
    return this.#members.map((one) => (one === member ? view : this.#fromReference(one, common)));
  }

  /** The reference always stands upright. */
  #inReference({ viewer, map, hand }: Member, view: View): View {
    if (map) {
      const { x, y, scale } = map.toLeft(view.x, view.y);
      return { x, y, size: view.size / scale, turn: 0 };
    }
    const scale = (wholeSize(viewer) / this.#wholeReference()) * hand.scale;
    return { x: view.x - hand.x, y: view.y - hand.y, size: view.size / scale, turn: 0 };
  }

  #fromReference(member: Member, view: View): View {
    const { map } = member;
    if (map) {
      const { x, y, scale, turn } = map.toRight(view.x, view.y);
      return { x, y, size: view.size / scale, turn: -turn };
    }
    return this.#byHand(member, view);
  }

  #byHand({ viewer, hand }: Member, view: View): View {
    const scale = (wholeSize(viewer) / this.#wholeReference()) * hand.scale;
    return { x: view.x + hand.x, y: view.y + hand.y, size: view.size * scale, turn: 0 };
  }

  #wholeReference(): number {
    const reference = this.#members[this.#reference];
    return reference ? wholeSize(reference.viewer) : 1;
  }

  #lead(leader: Member | undefined): void {
    if (!this.#linked || this.#following || !leader?.viewer.isOpen()) return;
    const views = this.same(this.#members.indexOf(leader), viewOf(leader.viewer));
    this.#quietly(() =>
      this.#members.forEach(({ viewer }, index) => {
        const view = views[index];
        if (view && viewer !== leader.viewer && viewer.isOpen()) show(viewer, view);
      }),
    );
  }

  #keepPresentViews(): void {
    for (const member of this.#members) if (!member.map) member.hand = this.#seen(member);
  }

  /** How a photo lies beside the reference, as both are shown now. */
  #seen(member: Member): ByHand {
    const reference = this.#members[this.#reference];
    if (!reference?.viewer.isOpen() || !member.viewer.isOpen()) return member.hand;
    const [common, seen] = [viewOf(reference.viewer), viewOf(member.viewer)];
    const scale = seen.size / common.size / (wholeSize(member.viewer) / this.#wholeReference());
    const hand = { x: seen.x - common.x, y: seen.y - common.y, scale };
    const same = Math.abs(hand.x) + Math.abs(hand.y) < 0.002 && Math.abs(scale - 1) < 0.005;
    return same ? UNMOVED : hand;
  }

  /** The reference and photos without a map stand upright. */
  #turnBack(): void {
    this.#quietly(() =>
      this.#members.forEach((member, index) => {
        const upright = index === this.#reference || !member.map;
        if (upright && member.viewer.isOpen()) member.viewer.viewport.setRotation(0, true);
      }),
    );
  }

  #quietly(act: () => void): void {
    this.#following = true;
    act();
    this.#following = false;
  }
}
