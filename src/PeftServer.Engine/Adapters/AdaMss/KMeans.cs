namespace PeftServer.Engine.Adapters.AdaMss;

/// <summary>
/// Lloyd's k-means as scikit-learn runs it with <c>init="random", n_init=1, max_iter=10, random_state=123456789</c>: PEFT does not save the
/// groups, so they have to be found again, the same.
/// </summary>
internal static class KMeans
{
    private const int Rounds = 10;
    private const double Tolerance = 1e-4;
    private const uint Seed = 123456789;

    /// <summary>A label for each of <paramref name="count"/> rows of <paramref name="width"/> numbers.</summary>
    public static int[] Labels(float[] rows, int count, int width, int clusters)
    {
        Centre(rows, count, width);
        var tolerance = Tolerance * Enumerable.Range(0, width).Average(column => Variance(rows, count, width, column));
        var centres = First(count, clusters).Select(row => rows.AsSpan(row * width, width).ToArray()).ToArray();
        var labels = new int[count];
        var before = new int[count];
        Array.Fill(before, -1);
        for (var round = 0; round < Rounds; round++)
        {
            Assign(rows, width, centres, labels);
            var moved = Move(rows, width, centres, labels);
            if (labels.AsSpan().SequenceEqual(before))
            {
                return labels;
            }

            if (moved <= tolerance)
            {
                break;
            }

            labels.CopyTo(before, 0);
        }

        Assign(rows, width, centres, labels); // to the centres as they are in the end
        return labels;
    }

    private static void Centre(float[] rows, int count, int width)
    {
        for (var column = 0; column < width; column++)
        {
            var mean = 0.0;
            for (var row = 0; row < count; row++)
            {
                mean += rows[(row * width) + column];
            }

            mean /= count;
            for (var row = 0; row < count; row++)
            {
                rows[(row * width) + column] -= (float)mean;
            }
        }
    }

    private static double Variance(float[] rows, int count, int width, int column)
    {
        var values = Enumerable.Range(0, count).Select(row => (double)rows[(row * width) + column]).ToList();
        var mean = values.Average();
        return values.Average(value => (value - mean) * (value - mean));
    }

    private static void Assign(float[] rows, int width, float[][] centres, int[] labels)
    {
        for (var row = 0; row < labels.Length; row++)
        {
            var (nearest, least) = (0, double.PositiveInfinity);
            for (var cluster = 0; cluster < centres.Length; cluster++)
            {
                var distance = Distance(rows.AsSpan(row * width, width), centres[cluster]);
                if (distance < least)
                {
                    (nearest, least) = (cluster, distance);
                }
            }

            labels[row] = nearest;
        }
    }

    /// <summary>Puts each centre into the middle of its rows; an empty one where the row farthest from its own is. Gives how far they went, squared.</summary>
    private static double Move(float[] rows, int width, float[][] centres, int[] labels)
    {
        var (sums, counts) = (centres.Select(_ => new double[width]).ToArray(), new int[centres.Length]);
        for (var row = 0; row < labels.Length; row++)
        {
            counts[labels[row]]++;
            for (var column = 0; column < width; column++)
            {
                sums[labels[row]][column] += rows[(row * width) + column];
            }
        }

        var far = Enumerable.Range(0, labels.Length).OrderByDescending(row => Distance(rows.AsSpan(row * width, width), centres[labels[row]])).ToList();
        foreach (var (empty, i) in Enumerable.Range(0, centres.Length).Where(cluster => counts[cluster] == 0).Select((cluster, i) => (cluster, i)).ToList())
        {
            var (row, owner) = (far[i], labels[far[i]]);
            for (var column = 0; column < width; column++)
            {
                sums[owner][column] -= rows[(row * width) + column];
                sums[empty][column] = rows[(row * width) + column];
            }

            (counts[owner], counts[empty]) = (counts[owner] - 1, 1);
        }

        var moved = 0.0;
        for (var cluster = 0; cluster < centres.Length; cluster++)
        {
            var centre = counts[cluster] == 0 ? centres[cluster] : Array.ConvertAll(sums[cluster], sum => (float)(sum / counts[cluster]));
            moved += Distance(centre, centres[cluster]);
            centres[cluster] = centre;
        }

        return moved;
    }

    private static double Distance(ReadOnlySpan<float> a, ReadOnlySpan<float> b)
    {
        var sum = 0.0;
        for (var i = 0; i < a.Length; i++)
        {
            sum += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        }

        return sum;
    }

    /// <summary>The rows that the centres start at: NumPy's choice(count, clusters, replace=False, p=uniform).</summary>
    private static List<int> First(int count, int clusters)
    {
        var random = new MersenneTwister(Seed);
        var (weights, found) = (Enumerable.Repeat(1.0 / count, count).ToArray(), new List<int>());
        while (found.Count < clusters)
        {
            var drawn = Enumerable.Range(0, clusters - found.Count).Select(_ => random.NextDouble()).ToList();
            found.ForEach(row => weights[row] = 0);
            var sums = new double[count];
            for (var (row, sum) = (0, 0.0); row < count; row++)
            {
                sums[row] = sum += weights[row];
            }

            var total = sums[^1];
            var rows = drawn.Select(value => Array.FindIndex(sums, sum => value < sum / total)).Distinct().ToList();
            found.AddRange(rows);
        }

        return found;
    }

    /// <summary>MT19937, with NumPy's doubles of 53 bits: <see href="http://www.math.sci.hiroshima-u.ac.jp/m-mat/MT/emt.html"/>.</summary>
    private sealed class MersenneTwister
    {
        private readonly uint[] _state = new uint[624];
        private int _next = 624;

        public MersenneTwister(uint seed)
        {
            _state[0] = seed;
            for (var i = 1u; i < 624; i++)
            {
                _state[i] = (1812433253u * (_state[i - 1] ^ (_state[i - 1] >> 30))) + i;
            }
        }

        public double NextDouble()
        {
            var (a, b) = (Next() >> 5, Next() >> 6);
            return ((a * 67108864.0) + b) / 9007199254740992.0;
        }

        private uint Next()
        {
            if (_next == 624)
            {
                Twist();
            }

            var y = _state[_next++];
            y ^= y >> 11;
            y ^= (y << 7) & 0x9d2c5680u;
            y ^= (y << 15) & 0xefc60000u;
            return y ^ (y >> 18);
        }

        private void Twist()
        {
            for (var i = 0; i < 624; i++)
            {
                var y = (_state[i] & 0x80000000u) | (_state[(i + 1) % 624] & 0x7fffffffu);
                _state[i] = _state[(i + 397) % 624] ^ (y >> 1) ^ ((y & 1) == 0 ? 0 : 0x9908b0dfu);
            }

            _next = 0;
        }
    }
}
