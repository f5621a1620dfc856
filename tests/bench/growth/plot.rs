//! A plot of some lines as SVG.

use std::fmt::Write as _;

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 360.0;
/// Around the area where the lines are, for labels.
const LEFT: f64 = 60.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 44.0;

/// Lines, from the first on. They can be told apart on white and on black, by most people.
const COLOURS: [&str; 4] = ["#2f7ed8", "#d9730d", "#2e9d5b", "#a34fc4"];

/// A plot. Both axes begin at zero; x is logarithmic if the points are.
pub struct Plot<'a> {
    pub x: &'a str,
    pub y: &'a str,
    pub lines: Vec<Line<'a>>,
}

/// A line.
pub struct Line<'a> {
    pub name: &'a str,
    pub points: Vec<(f64, f64)>,
}

impl Plot<'_> {
    pub fn svg(&self) -> String {
        let all = || self.lines.iter().flat_map(|line| &line.points);
        let mut xs: Vec<f64> = all().map(|(x, _)| *x).collect();
        xs.sort_by(f64::total_cmp);
        xs.dedup();
        let is_logarithmic = is_logarithmic(&xs);
        // Zero has a place on a logarithmic axis, too.
        let scale = |x: f64| if is_logarithmic { x.ln_1p() } else { x };
        let low = if is_logarithmic { xs.first().map_or(0.0, |x| scale(*x)) } else { 0.0 };
        let high = xs.last().map_or(1.0, |x| scale(*x));
        let step = step(all().map(|(_, y)| *y).fold(f64::MIN_POSITIVE, f64::max));
        let top = step * (all().map(|(_, y)| *y).fold(0.0, f64::max) / step).ceil().max(1.0);
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let x_of =
            |x: f64| LEFT + (right - LEFT) * (scale(x) - low) / (high - low).max(f64::MIN_POSITIVE);
        let y_of = |y: f64| bottom - (bottom - TOP) * y / top;
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"sans-serif\" font-size=\"12\" fill=\"#777\">\n"
        );
        let mut text = |x: f64, y: f64, anchor: &str, text: &str| {
            let text = text.replace('&', "&amp;").replace('<', "&lt;");
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>"
            );
        };
        text(LEFT, 16.0, "start", self.y);
        text((LEFT + right) / 2.0, HEIGHT - 8.0, "middle", self.x);
        let mut last = f64::NEG_INFINITY;
        for x in &xs {
            // Labels must not touch each other.
            if x_of(*x) - last > 36.0 {
                last = x_of(*x);
                text(last, bottom + 18.0, "middle", &short(*x));
            }
        }
        let mut y = 0.0;
        while y <= top * 1.001 {
            text(LEFT - 6.0, y_of(y) + 4.0, "end", &short(y));
            y += step;
        }
        let mut grid = 0.0;
        while grid <= top * 1.001 {
            let y = y_of(grid);
            let _ = writeln!(svg, "<path d=\"M{LEFT} {y:.1}H{right}\" stroke=\"#7774\"/>");
            grid += step;
        }
        let mut legend = LEFT;
        for (line, colour) in self.lines.iter().zip(COLOURS.iter().cycle()) {
            let points: Vec<_> = line
                .points
                .iter()
                .map(|(x, y)| format!("{:.1},{:.1}", x_of(*x), y_of(*y)))
                .collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                points.join(" ")
            );
            for point in &points {
                let (x, y) = point.split_once(',').expect("both");
                let _ = writeln!(svg, "<circle cx=\"{x}\" cy=\"{y}\" r=\"3\" fill=\"{colour}\"/>");
            }
            let name = line.name;
            let _ = writeln!(svg, "<text x=\"{legend}\" y=\"34\" fill=\"{colour}\">{name}</text>");
            legend += 40.0 + 7.0 * name.len() as f64;
        }
        svg + "</svg>\n"
    }
}

/// Whether the points grow by factors rather than by steps.
fn is_logarithmic(xs: &[f64]) -> bool {
    let mut positive = xs.iter().filter(|x| **x > 0.0);
    let (first, second, last) = (positive.next(), positive.next(), xs.last());
    let (Some(first), Some(second), Some(last)) = (first, second, last) else { return false };
    last - first > 2.0 * (second - first) * (xs.len() - 1) as f64
}

/// A round distance of the lines of the grid: four to eight of them up to `max`.
fn step(max: f64) -> f64 {
    let power = 10_f64.powf((max / 4.0).log10().floor());
    let factor = [5.0, 2.0, 1.0].into_iter().find(|factor| factor * power <= max / 4.0);
    factor.unwrap_or(1.0) * power
}

/// A number without needless digits.
fn short(number: f64) -> String {
    match number {
        number if number >= 1e6 => format!("{}M", number / 1e6),
        number if number >= 1e4 => format!("{}k", number / 1e3),
        number => format!("{}", (number * 1000.0).round() / 1000.0),
    }
}
