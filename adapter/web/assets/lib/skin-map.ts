// Where a place of one photo is in another: the lattice that the server sends, interpolated. Places are in widths of a
// photo from its upper left corner, as OpenSeadragon counts them.

export interface Lattice {
  columns: number;
  rows: number;
  left: [number, number]; // width and height in pixels
  right: [number, number];
  left_in_right: [number, number][];
  right_in_left: [number, number][];
}

export interface Place {
  x: number;
  y: number;
  scale: number; // widths of the other photo for one width of this
  turn: number; // degrees clockwise by which skin is turned in the other photo
}

type Nodes = (x: number, y: number) => Place;

function between(nodes: [number, number][], columns: number, rows: number, aspect: number): Nodes {
  const node = (column: number, row: number): [number, number] => nodes[row * columns + column] ?? [0, 0];
  const cell = (at: number, count: number): number => Math.min(Math.max(Math.floor(at), 0), count - 2);
  return (x, y) => {
    const [across, down] = [x * (columns - 1), (y / aspect) * (rows - 1)];
    const [column, row] = [cell(across, columns), cell(down, rows)];
    const [u, v] = [across - column, down - row]; // beyond the photo the last cell goes on
    const [a, b, c, d] = [node(column, row), node(column + 1, row), node(column, row + 1), node(column + 1, row + 1)];
    const mix = (n: 0 | 1): number => (1 - v) * ((1 - u) * a[n] + u * b[n]) + v * ((1 - u) * c[n] + u * d[n]);
    const byX = (n: 0 | 1): number => ((1 - v) * (b[n] - a[n]) + v * (d[n] - c[n])) * (columns - 1);
    const byY = (n: 0 | 1): number => (((1 - u) * (c[n] - a[n]) + u * (d[n] - b[n])) * (rows - 1)) / aspect;
    const [xx, yx, xy, yy] = [byX(0), byX(1), byY(0), byY(1)];
    return {
      x: mix(0),
      y: mix(1),
      scale: Math.sqrt(Math.abs(xx * yy - xy * yx)),
      turn: (Math.atan2(yx - xy, xx + yy) * 180) / Math.PI,
    };
  };
}

export class SkinMap {
  readonly toRight: Nodes;
  readonly toLeft: Nodes;

  constructor({ columns, rows, left, right, left_in_right, right_in_left }: Lattice) {
    this.toRight = between(left_in_right, columns, rows, left[1] / left[0]);
    this.toLeft = between(right_in_left, columns, rows, right[1] / right[0]);
  }
}
