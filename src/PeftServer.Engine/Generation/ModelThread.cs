using System.Diagnostics.CodeAnalysis;
using System.Threading.Channels;

namespace PeftServer.Engine.Generation;

/// <summary>
/// A thread that owns a model and every tensor of it. Requests come to it through a channel and are its own until they are done; those that
/// are open when it ends are told why nothing comes of them.
/// </summary>
internal sealed class ModelThread<TRequest, TLimits> : IDisposable
    where TRequest : class
{
    private readonly Channel<TRequest> _arrivals = Channel.CreateUnbounded<TRequest>(new() { SingleReader = true });
    private readonly TaskCompletionSource<TLimits> _loaded = new(TaskCreationOptions.RunContinuationsAsynchronously);
    private readonly List<TRequest> _taken = [];
    private readonly Action _work;
    private readonly Action<TRequest, Exception> _refuse;
    private readonly string _name;
    private readonly Thread _thread;
    private volatile bool _stopping;
    private int _open;

    /// <param name="name">What the thread is called, and whoever runs it.</param>
    /// <param name="work">Loads the model, says so with <see cref="Ready"/>, and serves until <see cref="Wait"/> says that it is over.</param>
    /// <param name="refuse">Ends a request of which nothing comes.</param>
    public ModelThread(string name, Action work, Action<TRequest, Exception> refuse)
    {
        (_name, _work, _refuse) = (name, work, refuse);
        _thread = new Thread(Run) { Name = name, IsBackground = true };
    }

    /// <summary>Completes with what the model takes when it is loaded; fails with why it is not.</summary>
    public Task<TLimits> Loaded => _loaded.Task;

    /// <summary>Requests that are not done.</summary>
    public int Load => Volatile.Read(ref _open);

    /// <summary>Requests that the thread has taken and not done, in the order they came.</summary>
    public IReadOnlyList<TRequest> Taken => _taken;

    /// <summary>Begins; not before whoever runs it is whole.</summary>
    public void Start() => _thread.Start();

    /// <summary>From any thread: a request. One that comes too late is refused.</summary>
    public void Send(TRequest request)
    {
        Interlocked.Increment(ref _open);
        if (!_arrivals.Writer.TryWrite(request))
        {
            Interlocked.Decrement(ref _open);
            _refuse(request, new ObjectDisposedException(_name));
        }
    }

    /// <summary>Says that the model is loaded.</summary>
    public void Ready(TLimits limits) => _loaded.SetResult(limits);

    /// <summary>Waits for a request, where none is open; false when the thread is to end.</summary>
    public bool Wait() => !_stopping && (_taken.Count > 0 || _arrivals.Reader.WaitToReadAsync().AsTask().GetAwaiter().GetResult()) && !_stopping;

    /// <summary>The request that has waited longest, left where it is.</summary>
    public bool TryPeek([NotNullWhen(true)] out TRequest? next) => _arrivals.Reader.TryPeek(out next);

    /// <summary>Takes the request that has waited longest.</summary>
    public bool TryTake([NotNullWhen(true)] out TRequest? next)
    {
        if (!_arrivals.Reader.TryRead(out next))
        {
            return false;
        }

        _taken.Add(next);
        return true;
    }

    /// <summary>Says that a request has its answer, or its error.</summary>
    public void Done(TRequest request)
    {
        _taken.Remove(request);
        Interlocked.Decrement(ref _open);
    }

    public void Dispose()
    {
        _stopping = true;
        _arrivals.Writer.TryComplete();
        _thread.Join();
    }

    private void Run()
    {
        Exception why = new ObjectDisposedException(_name);
        try
        {
            _work();
        }
        catch (Exception e)
        {
            why = e;
        }

        _loaded.TrySetException(why);
        _arrivals.Writer.TryComplete();
        while (TryTake(out _))
        {
        }

        foreach (var request in _taken.ToList())
        {
            Done(request);
            _refuse(request, why);
        }
    }
}
