namespace PeftServer.Core.Http;

/// <summary>The faults of a request: all are counted, the first are kept, so that a hostile request costs no more than its size.</summary>
public sealed class FaultList
{
    private readonly List<ErrorDetail> _first = [];

    /// <summary>All of them.</summary>
    public int Count { get; private set; }

    /// <summary>The first <see cref="ApiError.MaxDetails"/>.</summary>
    public IReadOnlyList<ErrorDetail> First => _first;

    /// <summary>Words cost more than the count: <paramref name="fault"/> is asked for them only while they are kept.</summary>
    public void Add(Func<ErrorDetail> fault)
    {
        Count++;
        if (_first.Count < ApiError.MaxDetails)
        {
            _first.Add(fault());
        }
    }
}
