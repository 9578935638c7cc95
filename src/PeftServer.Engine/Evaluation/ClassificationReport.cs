namespace PeftServer.Engine.Evaluation;

/// <summary>What a classifier got right, as scikit-learn counts it; 0 where a quotient has nothing below the line.</summary>
public sealed class ClassificationReport
{
    private readonly int[,] _counts;

    /// <param name="truth">The class of each row, from 0.</param>
    /// <param name="guess">The class that was guessed.</param>
    /// <param name="classes">How many classes there are.</param>
    public ClassificationReport(IReadOnlyList<int> truth, IReadOnlyList<int> guess, int classes)
    {
        ArgumentOutOfRangeException.ThrowIfNotEqual(guess.Count, truth.Count);
        _counts = new int[classes, classes];
        for (var i = 0; i < truth.Count; i++)
        {
            _counts[truth[i], guess[i]]++;
        }

        Each = [.. Enumerable.Range(0, classes).Select(label => new FScore(Quotient(_counts[label, label], Guessed(label)), Quotient(_counts[label, label], Support(label))))];
    }

    /// <summary>One score for each class.</summary>
    public IReadOnlyList<FScore> Each { get; }

    public double Accuracy => Quotient(Enumerable.Range(0, Each.Count).Sum(label => _counts[label, label]), Total);

    /// <summary>Means over the classes of precision, recall and F1.</summary>
    public (double Precision, double Recall, double F1) Macro => Mean(_ => 1.0 / Each.Count);

    /// <summary>Means weighted by how many rows a class has.</summary>
    public (double Precision, double Recall, double F1) Weighted => Mean(label => Quotient(Support(label), Total));

    /// <summary>Matthews' correlation coefficient (<see href="https://doi.org/10.1016/j.compbiolchem.2004.09.006"/> for several classes).</summary>
    public double Matthews
    {
        get
        {
            var correct = (double)Enumerable.Range(0, Each.Count).Sum(label => _counts[label, label]);
            var both = Enumerable.Range(0, Each.Count).Sum(label => (double)Support(label) * Guessed(label));
            var truth = Enumerable.Range(0, Each.Count).Sum(label => (double)Support(label) * Support(label));
            var guess = Enumerable.Range(0, Each.Count).Sum(label => (double)Guessed(label) * Guessed(label));
            var below = Math.Sqrt(((double)Total * Total) - guess) * Math.Sqrt(((double)Total * Total) - truth);
            return below == 0 ? 0 : ((correct * Total) - both) / below;
        }
    }

    private int Total => _counts.Cast<int>().Sum();

    private int Support(int label) => Enumerable.Range(0, _counts.GetLength(1)).Sum(other => _counts[label, other]);

    private int Guessed(int label) => Enumerable.Range(0, _counts.GetLength(0)).Sum(other => _counts[other, label]);

    private (double Precision, double Recall, double F1) Mean(Func<int, double> weight) => (
        Each.Select((score, label) => weight(label) * score.Precision).Sum(),
        Each.Select((score, label) => weight(label) * score.Recall).Sum(),
        Each.Select((score, label) => weight(label) * score.F1).Sum());

    private static double Quotient(double above, double below) => below == 0 ? 0 : above / below;
}
