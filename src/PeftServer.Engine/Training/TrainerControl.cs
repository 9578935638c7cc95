namespace PeftServer.Engine.Training;

/// <summary>What a supervisor may ask of a running trainer. Set from another thread, read between micro-batches.</summary>
public sealed class TrainerControl
{
    private volatile StopRequest _request;

    public StopRequest Request => _request;

    /// <summary>Asks the run to stop; the first request counts.</summary>
    public void Stop(StopRequest request)
    {
        if (_request is StopRequest.None)
        {
            _request = request;
        }
    }
}

/// <summary>Why a run is to stop.</summary>
public enum StopRequest
{
    None,

    /// <summary>Stop at once; nothing of this run is wanted.</summary>
    Cancel,

    /// <summary>Write a checkpoint and stop; the run will go on later.</summary>
    Pause,

    /// <summary>The supervisor is gone. Write a checkpoint and stop; another may take the run up.</summary>
    Abandon,
}
